// The order of all sums is that of ranks and rows. Nothing of a rank's own enters what it solves.
#include "methods/galore/singular_bases.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"
#include "core/shared_loop.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/transfer.hpp"
#include "methods/galore/leading_basis.hpp"
#include "methods/parts/places.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t chunk_elements = std::int64_t{1} << 20;

}  // namespace

/// What is needed for a moment.
struct SingularBases::Work {
    Tensor problems;  // f64, flat: (gradients), each a Gram matrix and then a basis
    Tensor chunk;     // f64, flat: rows of a gradient
    Tensor received;  // accumulate type, flat: rows of the other tp ranks' columns
    Tensor gathered;  // compute type, flat: the parts of a basis that tp cuts
    Tensor sum;       // bytes: scratch of the sum of Gram matrices
    Tensor basis;     // accumulate type, flat: this rank's rows of a basis
    std::int64_t bytes = 0;
};

SingularBases::Work SingularBases::work() const {
    Places places(scratch_);
    Work at;
    const int ranks = topology_->world.size();
    at.problems = places.take(DType::f64, {count_ * problem()});
    at.chunk = places.take(DType::f64, {std::max(width_, std::min(kept_ * width_, chunk_elements))});
    at.received = places.take(wide_, {received_});
    at.gathered = places.take(dtype_, {gathered_});
    at.sum = places.take(DType::u8, {ranks > 1 ? width_ * width_ * 8 + 64 * ranks : 0});
    at.basis = places.take(wide_, {dtype_ == wide_ ? 0 : width_ * low_rank_});
    at.bytes = places.taken();
    return at;
}

void SingularBases::expect(const ModelContext& context, const WholeGradient& x, TallMatrices& tall) {
    topology_ = &context.topology;
    tall_ = &tall;
    const std::int64_t rows = x.values.dim(0), columns = x.values.dim(1);
    tall.expect_width(columns);
    tall.expect(topology_->world, padded(x));
    width_ = std::max(width_, padded(x));
    kept_ = std::max(kept_, rows);
    if (parts(x) == 1) return;
    const std::int64_t owned = TallMatrices::owned_by(0, topology_->dp, rows).kept;
    received_ = std::max(received_, (owned + parts(x) - 1) / parts(x) * padded(x));
    gathered_ = std::max(gathered_, padded(x) * x.basis.dim(1));
}

void SingularBases::allocate(const ModelContext& context, std::int64_t count, std::int64_t low_rank) {
    traffic_ = &context.traffic;
    dtype_ = context.dtype;
    wide_ = context.accumulate();
    count_ = count;
    low_rank_ = low_rank;
    bases_ = context.arena.take(MemoryClass::workspace, dtype_, {count, width_ * low_rank});
    scratch_ = {};
    scratch_ = context.arena.shared(DType::u8, {work().bytes});
}

kernels::Rows SingularBases::share(const WholeGradient& x, int p) const {
    const Comm& dp = topology_->dp;
    const std::int64_t owned = TallMatrices::owned_by(dp.rank(), dp, x.values.dim(0)).local,
                       block = (owned + parts(x) - 1) / parts(x), first = std::min(owned, p * block);
    return kernels::Rows::range(first, std::min(block, owned - first));
}

/// This rank's share of the owned rows: their columns of every tp rank.
std::vector<Tensor> SingularBases::shared_rows(const WholeGradient& x, const Work& at) const {
    const Tensor owned = TallMatrices::owned(rows_of(x));
    if (owned.empty()) return {};
    const auto part = [&](int p) {
        const kernels::Rows rows = share(x, p);
        return rows.count == 0 ? Tensor(nullptr, wide_, {0}) : owned.rows(rows.first, rows.count);
    };
    if (parts(x) == 1) return {part(0)};
    const Comm& tp = topology_->tp;
    const std::int64_t count = share(x, tp.rank()).count, columns = x.values.dim(1);
    std::vector<Tensor> send, received;
    for (int p = 0; p < tp.size(); ++p) {
        send.push_back(part(p));
        received.push_back(
            count == 0 ? Tensor(nullptr, wide_, {0})
                       : at.received.rows(p * count * columns, count * columns).reshape({count, columns}));
    }
    start_exchange(tp, send, received, *traffic_, TrafficGroup::other).wait();
    received[static_cast<std::size_t>(tp.rank())] = send[static_cast<std::size_t>(tp.rank())];
    return count == 0 ? std::vector<Tensor>{} : received;
}

void SingularBases::add_gram(const WholeGradient& x, const Work& at, Tensor gram) const {
    const std::vector<Tensor> columns = shared_rows(x, at);
    if (columns.empty()) return;
    const std::int64_t rows = columns[0].dim(0), width = padded(x),
                       most = std::max<std::int64_t>(1, at.chunk.size() / width);
    kernels::RowBatch batch;
    for (std::int64_t first = 0; first < rows; first += most) {
        const std::int64_t count = std::min(most, rows - first);
        const Tensor chunk = at.chunk.rows(0, count * width).reshape({count, width});
        for (std::size_t p = 0; p < columns.size(); ++p) {
            const std::int64_t part = columns[p].dim(1);
            batch.copy(kernels::whole_rows(columns[p], kernels::Rows::range(first, count)),
                       {chunk, kernels::Rows::range(0, count), static_cast<std::int64_t>(p) * part, part});
        }
        batch.run();
        kernels::matmul(
            {.a = chunk, .b = chunk, .c = gram, .op_a = kernels::Op::transpose, .accumulate = true});
    }
}

void SingularBases::collect_basis(const WholeGradient& x, const Work& at, Tensor to) const {
    if (parts(x) == 1) return kernels::copy(x.basis, to);
    const std::int64_t elements = x.basis.size();
    const Tensor all = at.gathered.rows(0, parts(x) * elements).reshape({parts(x), elements});
    start_all_gather(topology_->tp, x.basis.reshape({elements}), all, *traffic_, TrafficGroup::other).wait();
    kernels::copy(all.reshape(to.shape()), to);
}

/// From the solver to the owners of rows, and from these to all.
void SingularBases::distribute(std::span<const WholeGradient> gradients) const {
    const Comm& world = topology_->world;
    if (world.size() == 1) return;
    std::vector<TallMatrix> all;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const TallMatrix& x = all.emplace_back(basis(static_cast<std::int64_t>(i), gradients[i]));
        std::vector<Tensor> send(static_cast<std::size_t>(world.size()), Tensor(nullptr, dtype_, {0})),
            received = send;
        const int solver = gradients[i].solver;
        for (int p = 0; p < world.size() && solver == world.rank(); ++p) {
            const RowSlice rows = TallMatrices::owned_by(p, world, x.values.dim(0));
            if (rows.local > 0) send[static_cast<std::size_t>(p)] = x.values.rows(rows.begin, rows.local);
        }
        const Tensor own = TallMatrices::owned(x);
        if (!own.empty()) received[static_cast<std::size_t>(solver)] = own;
        start_exchange(world, send, received, *traffic_, TrafficGroup::other).wait();
    }
    tall_->gather(all);
}

TallMatrix SingularBases::basis(std::int64_t i, const WholeGradient& x) const {
    return {bases_.rows(i, 1)
                .reshape({width_ * low_rank_})
                .rows(0, padded(x) * low_rank_)
                .reshape({padded(x), low_rank_}),
            &topology_->world};
}

Tensor SingularBases::local_basis(std::int64_t i, const WholeGradient& x) const {
    const std::int64_t rows = x.values.dim(1);
    return basis(i, x).values.rows(x.cut ? topology_->tp_rank() * rows : 0, rows);
}

std::vector<std::int64_t> SingularBases::solve(std::span<const WholeGradient> gradients) {
    const Work at = work();
    const Comm& world = topology_->world;
    std::vector<TallMatrix> parts;
    for (const WholeGradient& x : gradients) parts.push_back(rows_of(x));
    tall_->sum(parts);
    // Problems are in the order of their solvers, so that each reads its own in one piece.
    std::vector<std::size_t> order(gradients.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto solver = [&](std::size_t i) { return gradients[i].solver; };
    std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return solver(i) < solver(j); });
    kernels::zero(at.problems);
    const auto square_of = [&](std::int64_t place, const WholeGradient& x) {
        return at.problems.rows(place * problem(), padded(x) * padded(x)).reshape({padded(x), padded(x)});
    };
    const auto basis_of = [&](std::int64_t place, const WholeGradient& x) {
        return at.problems.rows(place * problem() + width_ * width_, padded(x) * low_rank_)
            .reshape({padded(x), low_rank_});
    };
    for (std::size_t k = 0; k < order.size(); ++k) {
        const WholeGradient& x = gradients[order[k]];
        const Tensor gram = square_of(static_cast<std::int64_t>(k), x);
        add_gram(x, at, gram);
        if (world.size() > 1) start_all_reduce(world, gram, at.sum, *traffic_, TrafficGroup::other).wait();
        collect_basis(x, at, basis_of(static_cast<std::int64_t>(k), x));
    }
    std::int64_t first = 0, count = 0;
    for (const std::size_t i : order) {
        first += solver(i) < world.rank();
        count += solver(i) == world.rank();
    }
    std::vector<std::uint64_t> kept(gradients.size(), 0);
    if (count > 0) {
        const auto elements = static_cast<std::size_t>(problem());
        host_.resize(std::max(host_.size(), static_cast<std::size_t>(count) * elements));
        kernels::download(at.problems.rows(first * problem(), count * problem()), host_.data());
        for_in_turns(count, true, [&](std::int64_t k) {
            const std::size_t i = order[static_cast<std::size_t>(first + k)];
            const WholeGradient& x = gradients[i];
            double* gram = host_.data() + static_cast<std::size_t>(k) * elements;
            kept[i] = static_cast<std::uint64_t>(
                leading_basis({gram, elements}, padded(x), x.size, low_rank_,
                              {gram + width_ * width_, static_cast<std::size_t>(padded(x) * low_rank_)}));
        });
        for (std::int64_t k = 0; k < count; ++k) {
            const std::size_t i = order[static_cast<std::size_t>(first + k)];
            const Tensor solved = basis_of(first + k, gradients[i]);
            kernels::upload(host_.data() + static_cast<std::size_t>(k) * elements + width_ * width_, solved);
            kernels::copy(solved, basis(static_cast<std::int64_t>(i), gradients[i]).values);
        }
    }
    distribute(gradients);
    kept = all_reduce_sum_u64(world, kept);
    return {kept.begin(), kept.end()};
}

void SingularBases::project(std::span<const WholeGradient> gradients) const {
    const Work at = work();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const WholeGradient& x = gradients[i];
        const Tensor rows = TallMatrices::owned(rows_of(x));
        if (rows.empty()) continue;
        Tensor q = local_basis(static_cast<std::int64_t>(i), x);
        if (dtype_ != wide_) {
            const Tensor copy = at.basis.rows(0, q.size()).reshape(q.shape());
            kernels::copy(q, copy);
            q = copy;
        }
        kernels::matmul({.a = rows, .b = q, .c = TallMatrices::owned({x.projected, &topology_->dp})});
    }
}

double SingularBases::solve_bytes(std::span<const WholeGradient> gradients) const {
    const Comm &world = topology_->world, &tp = topology_->tp;
    double bytes = 0;
    std::vector<TallMatrix> sums, bases;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const WholeGradient& x = gradients[i];
        sums.push_back(rows_of(x));
        bases.push_back(basis(static_cast<std::int64_t>(i), x));
        const double row = static_cast<double>(low_rank_) * static_cast<double>(size_of(dtype_));
        for (int p = 0; p < parts(x); ++p)
            if (p != tp.rank() && parts(x) > 1)
                bytes += static_cast<double>(share(x, p).count * x.values.dim(1)) *
                         static_cast<double>(size_of(wide_));
        if (parts(x) > 1) bytes += all_gather_bytes(static_cast<double>(padded(x)) * row, parts(x));
        bytes += all_reduce_bytes(static_cast<double>(padded(x) * padded(x) * 8), world.size());
        for (int p = 0; p < world.size(); ++p)
            if (x.solver == world.rank() && p != world.rank())
                bytes += static_cast<double>(TallMatrices::owned_by(p, world, padded(x)).local) * row;
    }
    return bytes + tall_->sum_bytes(sums) + tall_->gather_bytes(bases);
}

/// A Gram matrix and a basis of each, and the eigenvectors of those under way.
double SingularBases::host_bytes(std::int64_t solved, int threads) const {
    return 8 * static_cast<double>(problem() * (solved + std::min<std::int64_t>(solved, threads)));
}

}  // namespace switchyard

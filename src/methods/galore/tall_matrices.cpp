// A Gram matrix is the sum of those of the ranks' own rows, in rank order.
#include "methods/galore/tall_matrices.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/shared_loop.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/reductions.hpp"
#include "kernels/transfer.hpp"
#include "methods/galore/cholesky.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t buffer_elements = std::int64_t{1} << 20;

}  // namespace

RowSlice TallMatrices::owned_by(int rank, const Comm& group, std::int64_t rows) {
    const std::int64_t block = (rows + group.size() - 1) / group.size(), begin = std::min(rows, rank * block);
    return {.begin = begin, .kept = block, .local = std::min(block, rows - begin)};
}

void TallMatrices::expect(const Comm& group, std::int64_t rows) {
    most_rows_ = std::max(most_rows_, owned_by(group.rank(), group, rows).kept);
    if (std::find(groups_.begin(), groups_.end(), &group) == groups_.end()) groups_.push_back(&group);
}

void TallMatrices::allocate(const ModelContext& context, std::int64_t count, std::int64_t low_rank) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    count_ = count;
    low_rank_ = low_rank;
    const auto take = [&](DType dtype, Shape shape) {
        return context.arena.take(MemoryClass::workspace, dtype, shape);
    };
    const std::int64_t square = low_rank * low_rank, ranks = topology_->world.size();
    grams_ = take(DType::f64, {count * square + low_rank});
    if (ranks > 1)
        gram_scratch_ =
            take(DType::f64, {std::max(square, std::min(count * square, buffer_elements)) + 8 * ranks});
    rows_ = take(DType::f64, {most_rows_, low_rank});
    product_ = take(DType::f64, {most_rows_, low_rank});
    minus_ones_ = take(DType::f64, {low_rank, 1});
    std::int64_t buffer = 0;
    for (const Comm* group : groups_)
        if (group->size() > 1) buffer = std::max(buffer, capacity(*group) * group->size());
    if (buffer > 0) {
        send_ = take(context.accumulate(), {buffer});
        received_ = take(context.accumulate(), {buffer});
    }
    if (!context.arena.measuring()) host_.resize(count * square);
}

std::int64_t TallMatrices::capacity(const Comm& group) const {
    return std::max({low_rank_, most_columns_, buffer_elements / group.size()});
}

std::vector<TallMatrices::Sent> TallMatrices::by_group(std::span<const TallMatrix> matrices) const {
    std::vector<Sent> all;
    all.reserve(2);  // items point at owners, which must not be copied
    for (const Comm* group : {&topology_->dp, &topology_->world}) {
        if (group->size() == 1) continue;
        Sent& sent = all.emplace_back();
        sent.group = group;
        for (const TallMatrix& x : matrices) {
            if (x.group != group) continue;
            sent.owners.push_back(block_owners(*group, x.values.dim(0)).owner);
            sent.tensors.push_back(x.values);
            sent.items.push_back({x.values.dim(1), &sent.owners.back()});
        }
        if (sent.tensors.empty()) all.pop_back();
    }
    return all;
}

Buckets TallMatrices::buckets_of(const Sent& sent, std::int64_t capacity) {
    // Blocks are ranges of rows, so that there are no lists.
    return {std::make_shared<BucketTable>(sent.items, sent.group->size(), capacity), {}};
}

void TallMatrices::sum(std::span<const TallMatrix> matrices) const {
    for (const Sent& sent : by_group(matrices))
        buckets_of(sent, capacity(*sent.group))
            .reduce(*sent.group, sent.tensors, send_, received_, *traffic_, TrafficGroup::other);
}

void TallMatrices::gather(std::span<const TallMatrix> matrices) const {
    for (const Sent& sent : by_group(matrices))
        buckets_of(sent, capacity(*sent.group))
            .gather(*sent.group, sent.tensors, send_, *traffic_, TrafficGroup::other);
}

Tensor TallMatrices::owned(const TallMatrix& x) {
    const RowSlice own = owned_by(x.group->rank(), *x.group, x.values.dim(0));
    return own.local == 0 ? Tensor{} : x.values.rows(own.begin, own.local);
}

Tensor TallMatrices::gram(std::int64_t first, std::int64_t count) const {
    const std::int64_t square = low_rank_ * low_rank_;
    return grams_.rows(first * square, count * square);
}

void TallMatrices::add_gram(const TallMatrix& x, Tensor gram) const {
    const Tensor own = owned(x);
    if (own.empty()) return;
    const Tensor wide = rows_.rows(0, own.dim(0));
    kernels::copy(own, wide);
    kernels::matmul({.a = wide, .b = wide, .c = gram, .op_a = kernels::Op::transpose, .accumulate = true});
}

void TallMatrices::sum_grams(std::int64_t count) const {
    const Comm& world = topology_->world;
    if (world.size() == 1) return;
    const std::int64_t together = std::max<std::int64_t>(1, buffer_elements / (low_rank_ * low_rank_));
    for (std::int64_t first = 0; first < count; first += together)
        start_all_reduce(world, gram(first, std::min(together, count - first)), gram_scratch_, *traffic_,
                         TrafficGroup::other)
            .wait();
}

std::vector<bool> TallMatrices::orthonormalise(std::span<const TallMatrix> from,
                                               std::span<const TallMatrix> to) {
    const auto count = static_cast<std::int64_t>(from.size());
    const Shape square{low_rank_, low_rank_};
    if (count == 0) return {};
    kernels::zero(gram(0, count));
    for (std::int64_t i = 0; i < count; ++i) add_gram(from[i], gram(i, 1).reshape(square));
    sum_grams(count);
    kernels::download(gram(0, count), host_.data());
    std::vector<char> solved(from.size());
    for_in_turns(count, true, [&](std::int64_t i) {
        const auto elements = static_cast<std::size_t>(square.size());
        solved[i] = orthonormalising_map({host_.data() + i * square.size(), elements}, low_rank_);
    });
    kernels::upload(host_.data(), gram(0, count));
    for (std::int64_t i = 0; i < count; ++i) {
        const Tensor own = owned(from[i]);
        if (own.empty() || !solved[i]) continue;
        const Tensor wide = rows_.rows(0, own.dim(0)), product = product_.rows(0, own.dim(0));
        kernels::copy(own, wide);
        kernels::matmul({.a = wide, .b = gram(i, 1).reshape(square), .c = product});
        kernels::copy(product, owned(to[i]));
    }
    gather(to);
    return {solved.begin(), solved.end()};
}

void TallMatrices::measure(const TallMatrix& q, Tensor result) {
    const Tensor gram = grams_.rows(0, low_rank_ * low_rank_);
    kernels::zero(gram);
    if (topology_->world.rank() == 0) {
        // As rows of r + 1 elements the matrix has its diagonal in column 0.
        const Tensor strided =
            grams_.rows(0, low_rank_ * (low_rank_ + 1)).reshape({low_rank_, low_rank_ + 1});
        kernels::fill(minus_ones_, -1.0);
        kernels::copy_rows(kernels::whole_rows(minus_ones_),
                           {strided, kernels::Rows::range(0, low_rank_), 0, 1});
    }
    add_gram(q, gram.reshape({low_rank_, low_rank_}));
    sum_grams(1);
    kernels::max_abs(gram, result);
}

double TallMatrices::gather_bytes(std::span<const TallMatrix> matrices) const {
    double bytes = 0;
    for (const Sent& sent : by_group(matrices))
        bytes += bucket_bytes(sent.items, sent.group->size(), capacity(*sent.group),
                              size_of(sent.tensors[0].dtype()));
    return bytes;
}

double TallMatrices::sum_bytes(std::span<const TallMatrix> matrices) const {
    return gather_bytes(matrices);  // as many each way
}

double TallMatrices::gram_bytes(std::int64_t count) const {
    const std::int64_t square = low_rank_ * low_rank_,
                       together = std::max<std::int64_t>(1, buffer_elements / square);
    double bytes = 0;
    for (std::int64_t first = 0; first < count; first += together)
        bytes += all_reduce_bytes(static_cast<double>(std::min(together, count - first) * square * 8),
                                  topology_->world.size());
    return bytes;
}

double TallMatrices::orthonormalise_bytes(std::span<const TallMatrix> to) const {
    return gram_bytes(static_cast<std::int64_t>(to.size())) + gather_bytes(to);
}

double TallMatrices::measure_bytes() const {
    return gram_bytes(1);
}

}  // namespace switchyard

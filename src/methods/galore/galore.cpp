// GaLore (Zhao et al. 2024, arXiv 2403.03507): Adam's moments live in a subspace of the gradient G (m, n).
// With an orthonormal basis Q (n, r), R = G Q, N = Adam's direction for R, and W -= lr (alpha N Q' + wd W);
// mirrored where the output is projected. Moments are kept when the basis changes, as published. W is a
// frozen base, of which every rank computes the same update from N, so that N travels and not W. Bases follow
// the gradient by subspace iteration, or are its singular vectors (published), or are drawn.
#include <algorithm>
#include <limits>
#include <map>

#include "comm/uncounted.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/units.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"
#include "methods/galore/projected_adapter.hpp"
#include "methods/galore/singular_bases.hpp"
#include "methods/galore/tall_matrices.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

struct Matrix {
    Linear* linear = nullptr;
    ProjectedAdapter* adapter = nullptr;
    const Comm *kept_owners = nullptr, *projected_owners = nullptr;
    bool has_range = false;   // the direction's value is a basis of the range of R
    std::int64_t buffer = 0;  // which of the memory for whole gradients is its

    TallMatrix gradient() const { return {adapter->direction().gradient, kept_owners}; }
    TallMatrix direction() const { return {adapter->direction().value, kept_owners}; }
    TallMatrix image() const { return {adapter->image(), projected_owners}; }
    TallMatrix basis() const { return {adapter->basis(), projected_owners}; }
};

enum class Basis { subspace, svd, random };

Basis basis_of(const std::string& text) {
    return text == "svd" ? Basis::svd : text == "random" ? Basis::random : Basis::subspace;
}

/// When bases change. A step of subspace iteration takes two steps of training: `range`, at the end of step
/// k T (k = 0, 1, ...), takes U = orth(R); step k T + 1 also accumulates G' U; `basis`, at its end, takes Q =
/// orth(G' U). Random bases are drawn at the end of each T-th step. Singular vectors are taken before the
/// projection of the same step's gradient: of all L matrices in steps k T, or of matrix j in k T + j T / L.
class RefreshSchedule {
  public:
    enum class Work { none, range, basis, draw };
    RefreshSchedule(std::int64_t interval, Basis basis, bool together)
        : interval_(interval), basis_(basis), together_(together) {}

    /// True if matrix j of `count` takes its singular vectors in `step`.
    bool due(std::int64_t step, std::int64_t j, std::int64_t count) const {
        return basis_ == Basis::svd && step % interval_ == turn(j, count);
    }
    /// The step of an interval in which it is due.
    std::int64_t turn(std::int64_t j, std::int64_t count) const {
        return together_ ? 0 : j * interval_ / count;
    }

    /// What is to be done at the end of `step`. has_range: the step before did `range`.
    Work after(std::int64_t step, bool has_range) const {
        if (basis_ == Basis::svd) return Work::none;
        if (basis_ == Basis::random) return (step + 1) % interval_ == 0 ? Work::draw : Work::none;
        if (has_range) return Work::basis;
        return step % interval_ == 0 ? Work::range : Work::none;
    }
    /// The number of the basis that is drawn after `step`; that of the start is 0.
    std::int64_t draw(std::int64_t step) const { return (step + 1) / interval_; }

  private:
    std::int64_t interval_;
    Basis basis_;
    bool together_;
};

class Galore : public Method {
  public:
    explicit Galore(const Config& config)
        : basis_(basis_of(option_text(config.method, "basis"))),
          interval_(option_integer(config.method, "update_interval")),
          low_rank_(option_integer(config.method, "rank")),
          alpha_(option_real(config.method, "alpha")),
          schedule_(interval_, basis_, option_boolean(config.method, "refresh_together")) {}

    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) override;
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void weights_changed(const ModelContext&, std::int64_t step) override;
    void begin_step(std::int64_t step) override;
    void reduce_gradients(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    MethodReport after_gather(Optimizer&, std::int64_t step) override;
    void end_step(std::span<const double> scalars, MethodReport&) override;
    void visit_state(StateIo&, Optimizer&) override;
    std::optional<Refusal> refusal(Use) const override;
    std::vector<std::string> notes(const Config&) const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  private:
    template <class Part>
    std::vector<TallMatrix> all(Part part) const {
        std::vector<TallMatrix> matrices;
        for (const Matrix& x : matrices_) matrices.push_back((x.*part)());
        return matrices;
    }
    bool is_direction(const Parameter&) const;
    /// Q <- an orthonormal basis of keyed normal columns, number k.
    void draw_bases(std::int64_t k);
    void refresh(std::int64_t step, MethodReport&);
    std::int64_t count() const { return static_cast<std::int64_t>(matrices_.size()); }
    WholeGradient whole_gradient(std::int64_t j, Tensor memory) const;
    /// Those that are due in a step, and their gradients in the memory for them.
    std::vector<std::int64_t> due_in(std::int64_t step) const;
    std::vector<WholeGradient> whole_gradients(const std::vector<std::int64_t>& due) const;
    void allocate_whole_gradients(const ModelContext&);
    void visit_rows(StateIo&, const std::string& path, const Matrix&, const Shard&, const TallMatrix&) const;

    Basis basis_;
    std::int64_t interval_, low_rank_;
    double alpha_;
    RefreshSchedule schedule_;
    std::vector<Matrix> matrices_;
    TallMatrices tall_;
    SingularBases singular_;
    std::vector<Tensor> buffers_;  // flat, for whole gradients
    std::uint64_t seed_ = 0;
    int world_rank_ = 0;
    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    std::int64_t step_ = 0;            // the step that is being made
    bool has_range_ = false;           // of the last step: Work::range was done
    std::int64_t unproved_ = 0;        // bases that the last step changed
    bool loaded_ = false;              // bases are at the owners of their rows alone
    const Matrix* sampled_ = nullptr;  // its basis was measured in this step
    std::vector<std::int64_t> due_;    // matrices that take singular vectors in this step,
    std::vector<std::int64_t> kept_;   // and how many columns of their bases stayed
    int threads_ = 1, world_size_ = 1;
    Tensor residual_;  // (1) f64 of the step's scalars
    int residual_slot_ = 0;
    std::vector<kernels::AdamWRows> directions_;
    kernels::AdamWSettings rates_;  // of this step
};

std::unique_ptr<Adapter> Galore::attach(const ModelContext& context, Linear& linear) {
    const Projected side = projected_side(option_text(context.config.method, "projection"), linear);
    const double refreshes = 1.0 / static_cast<double>(interval_);
    auto adapter =
        std::make_unique<ProjectedAdapter>(context, linear, low_rank_, side, basis_ == Basis::subspace);
    if (basis_ == Basis::subspace) adapter->set_followed(refreshes);
    if (basis_ == Basis::svd) adapter->set_whole(refreshes);
    matrices_.push_back({&linear, adapter.get(),
                         &owner_group(context.topology, adapter->direction().tp_gradient),
                         &owner_group(context.topology, adapter->tp_of_projected())});
    return adapter;
}

bool Galore::is_direction(const Parameter& parameter) const {
    return std::any_of(matrices_.begin(), matrices_.end(),
                       [&](const Matrix& x) { return &x.adapter->direction() == &parameter; });
}

OwnershipPlan Galore::ownership(const ModelContext& context, const Parameter& parameter) {
    OwnershipPlan plan = Method::ownership(context, parameter);
    plan.master = !is_direction(parameter);
    return plan;
}

void Galore::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    dtype_ = context.dtype;
    world_rank_ = context.topology.world.rank();
    world_size_ = context.topology.world.size();
    threads_ = kernels::num_threads();
    if (basis_ == Basis::svd) allocate_whole_gradients(context);
    for (const Matrix& x : matrices_)
        for (const TallMatrix& tall : {x.direction(), x.basis()})
            tall_.expect(*tall.group, tall.values.dim(0));
    tall_.allocate(context, basis_ == Basis::svd ? 1 : count(), low_rank_);
    residual_slot_ = optimizer.scalars().take();
    residual_ = optimizer.scalars().slots(residual_slot_);
    seed_ = context.config.run.seed;
    traffic_ = &context.traffic;
}

WholeGradient Galore::whole_gradient(std::int64_t j, Tensor memory) const {
    ProjectedAdapter& adapter = *matrices_[static_cast<std::size_t>(j)].adapter;
    const Shape shape = adapter.whole_shape();
    return {.values = memory.empty() ? Tensor(nullptr, accumulate_type(dtype_), shape)
                                     : memory.rows(0, shape.size()).reshape(shape),
            .basis = adapter.basis(),
            .projected = adapter.direction().gradient,
            .size = adapter.projected().size,
            .cut = adapter.cut(),
            .solver = static_cast<int>(j % world_size_)};
}

/// Matrices whose turns are in different steps share memory.
void Galore::allocate_whole_gradients(const ModelContext& context) {
    std::map<std::int64_t, std::int64_t> taken;  // memory by turn
    std::vector<std::int64_t> elements;
    for (std::int64_t j = 0; j < count(); ++j) {
        Matrix& x = matrices_[static_cast<std::size_t>(j)];
        x.buffer = taken[schedule_.turn(j, count())]++;
        elements.resize(std::max(elements.size(), static_cast<std::size_t>(x.buffer) + 1));
        std::int64_t& most = elements[static_cast<std::size_t>(x.buffer)];
        most = std::max(most, x.adapter->whole_shape().size());
        singular_.expect(context, whole_gradient(j, {}), tall_);
    }
    buffers_.clear();
    for (const std::int64_t most : elements)
        buffers_.push_back(context.arena.take(MemoryClass::gradients, context.accumulate(), {most}));
    singular_.allocate(context, static_cast<std::int64_t>(buffers_.size()), low_rank_);
}

std::vector<std::int64_t> Galore::due_in(std::int64_t step) const {
    std::vector<std::int64_t> due;
    for (std::int64_t j = 0; j < count(); ++j)
        if (schedule_.due(step, j, count())) due.push_back(j);
    return due;
}

std::vector<WholeGradient> Galore::whole_gradients(const std::vector<std::int64_t>& due) const {
    std::vector<WholeGradient> all;
    for (const std::int64_t j : due) {
        const std::int64_t buffer = matrices_[static_cast<std::size_t>(j)].buffer;
        all.push_back(whole_gradient(j, buffers_[static_cast<std::size_t>(buffer)]));
    }
    return all;
}

void Galore::draw_bases(std::int64_t k) {
    for (const Matrix& x : matrices_) {
        const Extent& rows = x.adapter->projected();
        kernels::fill_normal(x.adapter->basis(), {low_rank_, rows.begin, 0, rows.count, low_rank_},
                             stream_key(seed_, fmt::format("{}.weight basis {}", x.linear->name(), k)), 1.0);
    }
    const std::vector<TallMatrix> bases = all(&Matrix::basis);
    const std::size_t together = basis_ == Basis::svd ? 1 : bases.size();
    for (std::size_t first = 0; first < bases.size(); first += together) {
        const std::span<const TallMatrix> some(bases.data() + first, together);
        const std::vector<bool> solved = tall_.orthonormalise(some, some);
        for (std::size_t i = 0; i < solved.size(); ++i)
            internal_check(solved[i], "{} normal columns of {} rows are numerically dependent", low_rank_,
                           matrices_[first + i].linear->name());
    }
    unproved_ = count();
}

void Galore::initialise(const ModelContext&) {
    const Uncounted scope(*traffic_);
    draw_bases(0);
    for (Matrix& x : matrices_) {
        x.has_range = false;
        kernels::zero(x.adapter->direction().value);
    }
    has_range_ = false;
}

void Galore::weights_changed(const ModelContext&, std::int64_t) {
    if (!loaded_) return;
    const Uncounted scope(*traffic_);
    tall_.gather(all(&Matrix::basis));
    loaded_ = false;
}

void Galore::begin_step(std::int64_t step) {
    step_ = step;
    std::vector<Tensor> images;
    for (const Matrix& x : matrices_) {
        x.adapter->follow_range(has_range_ && x.has_range);
        if (has_range_) images.push_back(x.adapter->image());
    }
    if (has_range_) kernels::zero(images);
    for (const std::int64_t j : due_) matrices_[static_cast<std::size_t>(j)].adapter->accumulate_whole({});
    due_ = due_in(step);
    const std::vector<WholeGradient> gradients = whole_gradients(due_);
    std::vector<Tensor> values;
    for (std::size_t i = 0; i < due_.size(); ++i) {
        matrices_[static_cast<std::size_t>(due_[i])].adapter->accumulate_whole(gradients[i].values);
        values.push_back(gradients[i].values);
    }
    if (!values.empty()) kernels::zero(values);
}

/// Parts of R = G Q with the new Q join the gradients of the step.
void Galore::reduce_gradients(Optimizer& optimizer) {
    if (!due_.empty()) {
        const std::vector<WholeGradient> gradients = whole_gradients(due_);
        kept_ = singular_.solve(gradients);
        singular_.project(gradients);
    }
    optimizer.reduce_gradients();
    if (has_range_) tall_.sum(all(&Matrix::image));
}

void Galore::update(Optimizer& optimizer, double lr_factor) {
    directions_.clear();
    optimizer.update(lr_factor, [&](const OwnedParameter& owned, const kernels::AdamWSettings& settings) {
        if (!is_direction(owned.parameter())) return true;
        rates_ = settings;
        if (owned.num_rows() > 0) directions_.push_back(owned.state_rows(settings));
        return false;
    });
    kernels::adam_direction(directions_, optimizer.clip());
}

MethodReport Galore::after_gather(Optimizer&, std::int64_t step) {
    MethodReport report;
    sampled_ = nullptr;
    report.vectors_switched = unproved_ * low_rank_;
    for (std::size_t i = 0; i < due_.size(); ++i) {
        if (unproved_ == 0) report.vectors_switched += low_rank_ - kept_[i];
        if (kept_[i] > 0) report.kept.push_back(matrices_[static_cast<std::size_t>(due_[i])].linear->name());
    }
    if (!due_.empty()) {
        const std::size_t i = static_cast<std::size_t>(step) % due_.size();
        sampled_ = &matrices_[static_cast<std::size_t>(due_[i])];
        tall_.measure(singular_.basis(static_cast<std::int64_t>(i), whole_gradient(due_[i], {})), residual_);
    } else if (unproved_ > 0) {
        sampled_ = &matrices_[static_cast<std::size_t>(step) % matrices_.size()];
        tall_.measure(sampled_->basis(), residual_);
    }
    if (sampled_) report.residual_of = sampled_->linear->name();
    return report;
}

/// The step's numbers are known to be finite here, so nothing else reaches a weight or a basis.
void Galore::end_step(std::span<const double> scalars, MethodReport& report) {
    if (sampled_) {
        report.residual = scalars[residual_slot_];
        // The rounding of unit columns, and what Cholesky QR leaves at its limit.
        const double eps = dtype_ == DType::bf16  ? 0x1p-8
                           : dtype_ == DType::f32 ? std::numeric_limits<float>::epsilon()
                                                  : std::numeric_limits<double>::epsilon();
        const double limit = 4 * eps + 2.3e-6 * static_cast<double>(low_rank_);
        require<AgreedError>(
            report.residual <= limit,
            "the basis of {} is orthonormal to {:.3g} only (limit {:.3g}: a gradient is projected and "
            "updates are formed with the same vectors); this is a defect or damaged memory: resume from the "
            "last checkpoint and report it",
            sampled_->linear->name(), report.residual, limit);
    }
    const std::vector<WholeGradient> gradients = whole_gradients(due_);
    for (std::size_t i = 0; i < gradients.size(); ++i)
        kernels::copy(singular_.local_basis(static_cast<std::int64_t>(i), gradients[i]), gradients[i].basis);
    for (const Matrix& x : matrices_)
        x.adapter->absorb(*x.linear, -rates_.lr * alpha_, 1 - rates_.lr * rates_.weight_decay);
    refresh(step_, report);
}

void Galore::refresh(std::int64_t step, MethodReport& report) {
    using Work = RefreshSchedule::Work;
    const Work work = schedule_.after(step, has_range_);
    unproved_ = 0;
    has_range_ = work == Work::range;
    for (Matrix& x : matrices_) x.has_range = false;
    if (work == Work::draw) draw_bases(schedule_.draw(step));
    if (work == Work::range) {
        const std::vector<bool> solved =
            tall_.orthonormalise(all(&Matrix::gradient), all(&Matrix::direction));
        for (std::size_t i = 0; i < solved.size(); ++i) matrices_[i].has_range = solved[i];
    }
    if (work == Work::basis) {
        const std::vector<bool> solved = tall_.orthonormalise(all(&Matrix::image), all(&Matrix::basis));
        for (std::size_t i = 0; i < solved.size(); ++i) {
            unproved_ += solved[i];
            if (!solved[i]) report.kept.push_back(matrices_[i].linear->name());
        }
    }
}

/// Loading gives the rows to their owners; weights_changed() distributes them.
void Galore::visit_rows(StateIo& io, const std::string& path, const Matrix& x, const Shard& shard,
                        const TallMatrix& tall) const {
    DistributedRows d;
    d.group = tall.group;
    d.global = shard.global;
    d.row0 = shard.row0;
    d.rows = shard.rows;
    d.cols = shard.cols;
    const std::vector<int> owner = block_owners(*tall.group, tall.values.dim(0)).owner;
    for (std::size_t row = 0; row < owner.size(); ++row)
        if (owner[row] == tall.group->rank()) d.held.push_back(static_cast<std::int32_t>(row));
    const auto place = [values = tall.values](std::int32_t row) {
        return kernels::whole_rows(values, kernels::Rows::range(row, 1));
    };
    io.rows("/method/" + x.linear->name() + path, d, {accumulate_type(dtype_), place, place});
}

void Galore::visit_state(StateIo& io, Optimizer&) {
    std::vector<std::int64_t> table{unproved_, has_range_};
    for (const Matrix& x : matrices_) table.push_back(x.has_range);
    io.integers("/method/refresh", table, world_rank_);
    unproved_ = table[0];
    has_range_ = table[1] != 0;
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
        Matrix& x = matrices_[i];
        x.has_range = table[i + 2] != 0;
        const Extent& rows = x.adapter->projected();
        visit_rows(io, "/projector", x, {"", {rows.size, low_rank_}, rows.begin, 0, rows.count, low_rank_},
                   x.basis());
        if (has_range_) visit_rows(io, "/range", x, x.adapter->direction().shard, x.direction());
    }
    if (io.loading()) loaded_ = true;
}

std::optional<Refusal> Galore::refusal(Use use) const {
    if (use != Use::export_adapters) return std::nullopt;
    return Refusal{"whole weights absorb its updates, and no adapter is left", "leave --adapters out"};
}

/// Host memory is not in the arena.
std::vector<std::string> Galore::notes(const Config&) const {
    double bytes = 0;
    if (basis_ == Basis::svd) {
        std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> solved;  // by turn and rank
        std::int64_t most = 0;
        for (std::int64_t j = 0; j < count(); ++j)
            most = std::max(most, ++solved[{schedule_.turn(j, count()), j % world_size_}]);
        bytes = singular_.host_bytes(most, threads_);
    } else {
        bytes = tall_.host_bytes();
    }
    if (bytes < 64 * 1024 * 1024) return {};
    return {fmt::format("bases are solved on the host, which takes {} of its memory beside what is planned",
                        bytes_text(bytes))};
}

std::vector<Traffic> Galore::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    using Work = RefreshSchedule::Work;
    std::vector<Traffic> plan = Method::plan_traffic(optimizer, steps);
    bool has_range = false, unproved = true;
    for (std::int64_t step = 0; step < steps; ++step) {
        Traffic& traffic = plan[static_cast<std::size_t>(step)];
        const auto add = [&](double bytes) { traffic.add(TrafficGroup::other, bytes); };
        const Work work = schedule_.after(step, has_range);
        const std::vector<std::int64_t> due = due_in(step);
        if (!due.empty()) add(singular_.solve_bytes(whole_gradients(due)));
        if (unproved || !due.empty()) add(tall_.measure_bytes());
        if (has_range) add(tall_.sum_bytes(all(&Matrix::image)));
        if (work == Work::range) add(tall_.orthonormalise_bytes(all(&Matrix::direction)));
        if (work == Work::basis || work == Work::draw) add(tall_.orthonormalise_bytes(all(&Matrix::basis)));
        has_range = work == Work::range;
        unproved = work == Work::basis || work == Work::draw;
    }
    return plan;
}

}  // namespace

MethodEntry galore() {
    using Type = MethodOption::Type;
    MethodOption rank = rank_option();
    rank.help = "columns of a basis; auto: hidden_size / 4";
    MethodOption alpha = alpha_option("0.25");
    alpha.help = "factor of the learning rate of projected matrices";
    const MethodOption interval{.key = "update_interval",
                                .type = Type::integer,
                                .default_value = "200",
                                .unit = "steps",
                                .help = "between two changes of the bases",
                                .minimum = 2,
                                .maximum = 1e9};
    const MethodOption basis{.key = "basis",
                             .type = Type::text,
                             .default_value = "subspace",
                             .help =
                                 "follows the gradient by subspace iteration, is its leading singular "
                                 "vectors, or is drawn",
                             .choices = {"subspace", "svd", "random"}};
    const MethodOption together{.key = "refresh_together",
                                .type = Type::boolean,
                                .default_value = "false",
                                .help = "svd: all matrices in one step, as published, and not in turns"};
    return {.options = {.name = "galore",
                        .help = "whole weights, with moments in a subspace of the gradient",
                        .options = {rank, alpha, interval, basis, together, projection_option()},
                        .lr = 1e-2},
            .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<Galore>(c); },
            .resolve = resolve_low_rank,
            .check = check_low_rank,
            .guide = {.equation = "R = G Q, W -= lr (alpha Adam(R) Q' + weight_decay W), Q orthonormal",
                      .source = "Zhao et al. 2024, arXiv 2403.03507",
                      .use = "pretraining on few ranks or a slow network; every weight learns",
                      .validated =
                          "ten steps of galore-torch in f64 with svd (1e-9); a reference of one process over "
                          "100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

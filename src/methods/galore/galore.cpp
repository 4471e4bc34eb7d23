// GaLore (Zhao et al. 2024, arXiv 2403.03507): Adam's moments live in a subspace of the gradient G (m, n).
// With an orthonormal basis Q (n, r), R = G Q, N = Adam's direction for R, and W -= lr (alpha N Q' + wd W);
// mirrored where the output is projected. Moments are kept when the basis changes, as published. W is a
// frozen base, of which every rank computes the same update from N, so that N travels and not W.
#include <algorithm>
#include <limits>

#include "comm/uncounted.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"
#include "methods/galore/projected_adapter.hpp"
#include "methods/galore/tall_matrices.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

struct Matrix {
    Linear* linear = nullptr;
    ProjectedAdapter* adapter = nullptr;
    const Comm *kept_owners = nullptr, *projected_owners = nullptr;
    bool has_range = false;  // the direction's value is a basis of the range of R

    TallMatrix gradient() const { return {adapter->direction().gradient, kept_owners}; }
    TallMatrix direction() const { return {adapter->direction().value, kept_owners}; }
    TallMatrix image() const { return {adapter->image(), projected_owners}; }
    TallMatrix basis() const { return {adapter->basis(), projected_owners}; }
};

/// When bases change. A step of subspace iteration takes two steps of training: `range`, at the end of step
/// k T (k = 0, 1, ...), takes U = orth(R); step k T + 1 also accumulates G' U; `basis`, at its end, takes Q =
/// orth(G' U). Random bases are drawn at the end of each T-th step.
class RefreshSchedule {
  public:
    enum class Work { none, range, basis, draw };
    RefreshSchedule() = default;
    RefreshSchedule(std::int64_t interval, bool random) : interval_(interval), random_(random) {}

    /// What is to be done at the end of `step`. has_range: the step before did `range`.
    Work after(std::int64_t step, bool has_range) const {
        if (random_) return (step + 1) % interval_ == 0 ? Work::draw : Work::none;
        if (has_range) return Work::basis;
        return step % interval_ == 0 ? Work::range : Work::none;
    }
    /// The number of the basis that is drawn after `step`; that of the start is 0.
    std::int64_t draw(std::int64_t step) const { return (step + 1) / interval_; }

  private:
    std::int64_t interval_ = 1;
    bool random_ = false;
};

class Galore : public Method {
  public:
    explicit Galore(const Config& config)
        : random_(option_text(config.method, "basis") == "random"),
          interval_(option_integer(config.method, "update_interval")),
          low_rank_(option_integer(config.method, "rank")),
          alpha_(option_real(config.method, "alpha")),
          schedule_(interval_, random_) {}

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
    void refresh(std::int64_t step);
    void visit_rows(StateIo&, const std::string& path, const Matrix&, const Shard&, const TallMatrix&) const;

    bool random_;
    std::int64_t interval_, low_rank_;
    double alpha_;
    RefreshSchedule schedule_;
    std::vector<Matrix> matrices_;
    TallMatrices tall_;
    std::uint64_t seed_ = 0;
    int world_rank_ = 0;
    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    std::int64_t step_ = 0;       // the step that is being made
    bool has_range_ = false;      // of the last step: Work::range was done
    std::int64_t unproved_ = 0;   // bases that the last step changed
    bool loaded_ = false;         // bases are at the owners of their rows alone
    const Matrix* sampled_ = nullptr;  // its basis was measured in this step
    Tensor residual_;             // (1) f64 of the step's scalars
    int residual_slot_ = 0;
    std::vector<kernels::AdamWRows> directions_;
    kernels::AdamWSettings rates_;  // of this step
};

std::unique_ptr<Adapter> Galore::attach(const ModelContext& context, Linear& linear) {
    const Projected side = projected_side(option_text(context.config.method, "projection"), linear);
    auto adapter = std::make_unique<ProjectedAdapter>(context, linear, low_rank_, side, !random_);
    if (!random_) adapter->set_followed(1.0 / static_cast<double>(interval_));
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
    for (const Matrix& x : matrices_)
        for (const TallMatrix& tall : {x.direction(), x.basis()})
            tall_.expect(*tall.group, tall.values.dim(0));
    tall_.allocate(context, static_cast<std::int64_t>(matrices_.size()), low_rank_);
    residual_slot_ = optimizer.scalars().take();
    residual_ = optimizer.scalars().slots(residual_slot_);
    seed_ = context.config.run.seed;
    world_rank_ = context.topology.world.rank();
    traffic_ = &context.traffic;
    dtype_ = context.dtype;
}

void Galore::draw_bases(std::int64_t k) {
    for (const Matrix& x : matrices_) {
        const Extent& rows = x.adapter->projected();
        kernels::fill_normal(x.adapter->basis(), {low_rank_, rows.begin, 0, rows.count, low_rank_},
                             stream_key(seed_, fmt::format("{}.weight basis {}", x.linear->name(), k)), 1.0);
    }
    const std::vector<TallMatrix> bases = all(&Matrix::basis);
    const std::vector<bool> solved = tall_.orthonormalise(bases, bases);
    for (std::size_t i = 0; i < solved.size(); ++i)
        internal_check(solved[i], "{} normal columns of {} rows are numerically dependent", low_rank_,
                       matrices_[i].linear->name());
    unproved_ = static_cast<std::int64_t>(matrices_.size());
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
}

void Galore::reduce_gradients(Optimizer& optimizer) {
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
    if (unproved_ == 0) return report;
    sampled_ = &matrices_[static_cast<std::size_t>(step) % matrices_.size()];
    tall_.measure(sampled_->basis(), residual_);
    report.vectors_switched = unproved_ * low_rank_;
    report.residual_of = sampled_->linear->name();
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
    for (const Matrix& x : matrices_)
        x.adapter->absorb(*x.linear, -rates_.lr * alpha_, 1 - rates_.lr * rates_.weight_decay);
    refresh(step_);
}

void Galore::refresh(std::int64_t step) {
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
    if (work == Work::basis)
        for (const bool solved : tall_.orthonormalise(all(&Matrix::image), all(&Matrix::basis)))
            unproved_ += solved;
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
        visit_rows(io, "/projector", x,
                   {"", {rows.size, low_rank_}, rows.begin, 0, rows.count, low_rank_}, x.basis());
        if (has_range_) visit_rows(io, "/range", x, x.adapter->direction().shard, x.direction());
    }
    if (io.loading()) loaded_ = true;
}

std::optional<Refusal> Galore::refusal(Use use) const {
    if (use != Use::export_adapters) return std::nullopt;
    return Refusal{"whole weights absorb its updates, and no adapter is left", "leave --adapters out"};
}

std::vector<Traffic> Galore::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    using Work = RefreshSchedule::Work;
    std::vector<Traffic> plan = Method::plan_traffic(optimizer, steps);
    bool has_range = false, unproved = true;
    for (std::int64_t step = 0; step < steps; ++step) {
        Traffic& traffic = plan[static_cast<std::size_t>(step)];
        const auto add = [&](double bytes) { traffic.add(TrafficGroup::other, bytes); };
        const Work work = schedule_.after(step, has_range);
        if (unproved) add(tall_.measure_bytes());
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
                             .help = "follows the gradient by subspace iteration, or is drawn",
                             .choices = {"subspace", "random"}};
    return {.options = {.name = "galore",
                        .help = "whole weights, with moments in a subspace of the gradient",
                        .options = {rank, alpha, interval, basis, projection_option()},
                        .lr = 1e-2},
            .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<Galore>(c); },
            .resolve = resolve_low_rank,
            .check = check_low_rank,
            .guide = {.equation = "R = G Q, W -= lr (alpha Adam(R) Q' + weight_decay W), Q orthonormal",
                      .source = "Zhao et al. 2024, arXiv 2403.03507",
                      .use = "pretraining on few ranks or a slow network; every weight learns",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

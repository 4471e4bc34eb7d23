// APOLLO (Zhu et al. 2024, arXiv 2412.05270): Adam's moments live in a random projection of the gradient G
// and say only how far each channel moves. R = G P with P keyed normal numbers of variance 1 / r, drawn anew
// every `update_interval` steps and never kept; N = Adam's direction for R; s_i = |N_i| / |R_i| for each row
// (rank r), or s = |N| / |R| for the tensor (rank 1, APOLLO-Mini); the update alpha s G, whose norm may grow
// by `growth_limit` from step to step; W -= lr (update + wd W). Mirrored where the output is projected: rows
// of a stored weight are the elements of the other dimension, so a channel is whole at its owner.
#include <cmath>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"
#include "kernels/reductions.hpp"
#include "kernels/scaled_descent.hpp"
#include "kernels/scaling.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/dense_adapter.hpp"
#include "methods/parts/places.hpp"
#include "methods/parts/projection.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

/// What is needed of a matrix (rows owned c, projected p) while its scales are formed.
struct Work {
    Tensor projection;                  // (p, r): P
    Tensor projected, direction;        // (c, r): R and N
    Tensor projected_squares, squares;  // (c): of the rows of R and of G
    Tensor sum;                         // scratch of a sum of R over tp
    std::int64_t bytes;                 // of all together

    /// tp: the number of ranks over which R is summed.
    Work(Places places, DType wide, std::int64_t c, std::int64_t p, std::int64_t r, int tp)
        : projection(places.take(wide, {p, r})),
          projected(places.take(wide, {c, r})),
          direction(places.take(wide, {c, r})),
          projected_squares(places.take(wide, {c})),
          squares(places.take(wide, {c})),
          sum(places.take(DType::u8, {tp > 1 ? static_cast<std::int64_t>(projected.bytes()) + 64 * tp : 0})),
          bytes(places.taken()) {}
};

struct Matrix {
    Linear* linear = nullptr;
    DenseAdapter* adapter = nullptr;
    Projected side = Projected::in;
    bool partial = false;        // R is a sum over tp, and all tp ranks have the same R
    int index = 0;               // of the weight in the optimizer
    std::int64_t rows = 0;       // owned here
    Tensor scales{};             // (rows): s_i, if there is one for each row
    Tensor scratch{};            // bytes, shared
    kernels::AdamWRows state{};  // of this step

    const Extent& projected() const { return side == Projected::in ? linear->in() : linear->out(); }
};

class Apollo : public Method {
  public:
    explicit Apollo(const Config& config)
        : projection_(option_text(config.method, "projection")),
          by_channel_(option_text(config.method, "scale_by") == "channel"),
          interval_(option_integer(config.method, "update_interval")),
          low_rank_(option_integer(config.method, "rank")),
          alpha_(option_real(config.method, "alpha")),
          growth_(option_real(config.method, "growth_limit")),
          seed_(config.run.seed) {}

    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) override;
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void begin_step(std::int64_t step) override { step_ = step; }
    void update(Optimizer&, double lr_factor) override;
    void visit_state(StateIo&, Optimizer&) override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  private:
    Matrix* find(const Parameter&);
    std::int64_t count() const { return static_cast<std::int64_t>(matrices_.size()); }
    Work work(const Matrix&) const;
    /// Numbers of each matrix that are summed over all ranks: the square of the update (by channel), or the
    /// squares of N, R and G.
    std::int64_t num_sums() const { return by_channel_ ? 1 : 3; }
    bool sums_over_tp(const Matrix& x) const { return x.partial && topology_->tp_size() > 1; }

    /// N from R, the scales of rows, and this rank's part of the sums.
    void measure(const Matrix&, Optimizer&, Tensor sums) const;
    void scale_channels(const Matrix&, const Work&, Tensor gradient, Tensor sums) const;
    void scale_tensor(const Matrix&, const Work&, Optimizer&, Tensor sums) const;
    void sum_over_ranks() const;
    /// factors_ <- what each update is multiplied with besides the scales of its rows.
    void form_factors(const Optimizer&) const;

    std::string projection_;
    bool by_channel_;
    std::int64_t interval_, low_rank_;
    double alpha_, growth_;
    std::uint64_t seed_;
    std::vector<Matrix> matrices_;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType wide_ = DType::f32;
    std::int64_t step_ = 0;  // the step that is being made
    Tensor sums_, sums_of_ranks_;  // f64 (matrices, num_sums()), and those of all ranks; empty for one rank
    Tensor squares_;               // f64 (num_sums(), matrices), by tensor alone
    Tensor norms_, factors_;       // f64 (matrices): norms of the updates of the last step; factors
    std::vector<kernels::ScaledRows> descents_;
};

std::unique_ptr<Adapter> Apollo::attach(const ModelContext& context, Linear& linear) {
    const Projected side = projected_side(projection_, linear);
    auto adapter = std::make_unique<DenseAdapter>(context, linear, side == Projected::out);
    adapter->set_step_cost(2 * static_cast<double>(linear.out().size * linear.in().size * low_rank_));
    matrices_.push_back({&linear, adapter.get(), side, cut_over_tp(side, linear)});
    return adapter;
}

Matrix* Apollo::find(const Parameter& parameter) {
    for (Matrix& x : matrices_)
        if (&x.adapter->weight() == &parameter) return &x;
    return nullptr;
}

OwnershipPlan Apollo::ownership(const ModelContext& context, const Parameter& parameter) {
    OwnershipPlan plan = Method::ownership(context, parameter);
    if (find(parameter)) plan.m_width = plan.v_width = low_rank_;
    return plan;
}

Work Apollo::work(const Matrix& x) const {
    return {Places(x.scratch), wide_, x.rows, x.projected().padded, low_rank_,
            x.partial ? topology_->tp_size() : 1};
}

void Apollo::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    wide_ = context.accumulate();
    Arena& arena = context.arena;
    const auto take = [&](DType dtype, Shape shape) {
        return arena.take(MemoryClass::workspace, dtype, shape);
    };
    for (Matrix& x : matrices_) {
        x.index = optimizer.index_of(&x.adapter->weight());
        x.rows = optimizer.owned()[x.index].num_rows();
        if (by_channel_) x.scales = take(wide_, {x.rows});
        x.scratch = arena.shared(DType::u8, {work(x).bytes});
    }
    const int ranks = topology_->world.size();
    sums_ = take(DType::f64, {count(), num_sums()});
    if (ranks > 1) sums_of_ranks_ = take(DType::f64, {ranks, count() * num_sums()});
    if (!by_channel_) squares_ = take(DType::f64, {num_sums(), count()});
    factors_ = take(DType::f64, {count()});
    norms_ = arena.take(MemoryClass::moments, DType::f64, {count()});
}

void Apollo::initialise(const ModelContext& context) {
    for (const Matrix& x : matrices_) x.adapter->initialise(context, *x.linear);
    kernels::zero(norms_);
}

void Apollo::update(Optimizer& optimizer, double lr_factor) {
    descents_.clear();
    kernels::zero(sums_);
    optimizer.update(lr_factor, [&](const OwnedParameter& owned, const kernels::AdamWSettings& settings) {
        Matrix* x = find(owned.parameter());
        if (x) x->state = owned.state_rows(settings);
        return x == nullptr;
    });
    for (std::int64_t i = 0; i < count(); ++i) {
        const Matrix& x = matrices_[i];
        if (x.rows == 0) continue;
        measure(x, optimizer, sums_.rows(i, 1).reshape({num_sums()}));
        descents_.push_back({.master = x.state.master,
                             .gradient = x.state.gradient,
                             .value = x.state.value,
                             .rows = x.state.rows,
                             .scale = x.scales,
                             .factor = factors_.rows(i, 1),
                             .lr = x.state.settings.lr,
                             .alpha = alpha_,
                             .weight_decay = x.state.settings.weight_decay});
    }
    sum_over_ranks();
    form_factors(optimizer);
    kernels::scaled_descent(descents_, optimizer.clip());
}

void Apollo::measure(const Matrix& x, Optimizer& optimizer, Tensor sums) const {
    const Work at = work(x);
    const Extent& p = x.projected();
    internal_check(x.state.rows.list.empty(), "{}: the owned rows are not a range", x.linear->name());
    const Tensor gradient = x.state.gradient.rows(x.state.rows.first, x.rows);
    kernels::fill_normal(
        at.projection, {low_rank_, p.begin, 0, p.count, low_rank_},
        stream_key(seed_, fmt::format("{}.weight projection {}", x.linear->name(), step_ / interval_)),
        1 / std::sqrt(static_cast<double>(low_rank_)));
    kernels::matmul({.a = gradient, .b = at.projection, .c = at.projected});
    if (sums_over_tp(x))
        start_all_reduce(topology_->tp, at.projected, at.sum, *traffic_, TrafficGroup::other).wait();
    kernels::AdamWRows state = x.state;
    state.master = {};
    state.gradient = at.projected;
    state.value = at.direction;
    state.rows = kernels::Rows::range(0, x.rows);
    kernels::adam_direction({&state, 1}, optimizer.clip());
    by_channel_ ? scale_channels(x, at, gradient, sums) : scale_tensor(x, at, optimizer, sums);
}

/// The clip coefficient c is in N and in c R alike: s_i c G_i = (|N_i| / |R_i|) G_i.
void Apollo::scale_channels(const Matrix& x, const Work& at, Tensor gradient, Tensor sums) const {
    const Tensor row = x.scales.reshape({1, x.rows});
    kernels::row_squared_norms({at.direction, {}}, x.scales);
    kernels::row_squared_norms({at.projected, {}}, at.projected_squares);
    kernels::divide(x.scales, at.projected_squares, x.scales);
    kernels::row_squared_norms({gradient, {}}, at.squares);
    kernels::add_row_dots(row, at.squares.reshape({1, x.rows}), 1, sums);
    kernels::square_root(x.scales);
}

/// Where all tp ranks have the same N and R, both are counted alike, and only their ratio matters.
void Apollo::scale_tensor(const Matrix& x, const Work& at, Optimizer& optimizer, Tensor sums) const {
    kernels::squared_norm(at.direction, sums.rows(0, 1));
    kernels::squared_norm(at.projected, sums.rows(1, 1));
    kernels::copy(optimizer.squared_norm_of(x.index), sums.rows(2, 1));
}

void Apollo::sum_over_ranks() const {
    if (sums_of_ranks_.empty()) return;
    const Tensor all = sums_.reshape({sums_.size()});
    start_all_gather(topology_->world, all, sums_of_ranks_, *traffic_, TrafficGroup::other).wait();
    kernels::combine_parts(sums_of_ranks_, kernels::Combine::sum, all);
}

void Apollo::form_factors(const Optimizer& optimizer) const {
    const Shape column{count(), 1};
    if (by_channel_)
        return kernels::limit_growth(sums_.reshape({count()}), growth_, optimizer.clip(), norms_, factors_);
    kernels::transpose(sums_, squares_);
    const Tensor scale = squares_.rows(0, 1).reshape({count()}),
                 projected = squares_.rows(1, 1).reshape({count()}),
                 update = squares_.rows(2, 1).reshape({count()});
    kernels::divide(scale, projected, scale);
    kernels::scale_rows(update.reshape(column), scale);
    kernels::limit_growth(update, growth_, optimizer.clip(), norms_, factors_);
    kernels::square_root(scale);
    kernels::scale_rows(factors_.reshape(column), scale);
}

void Apollo::visit_state(StateIo& io, Optimizer&) {
    const std::string path = "/method/update_norms";
    io.tensor(path, {path, {count()}, 0, 0, count(), 1, topology_->world.rank()}, norms_);
}

std::vector<Traffic> Apollo::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    std::vector<Traffic> plan = Method::plan_traffic(optimizer, steps);
    double bytes = all_gather_bytes(static_cast<double>(sums_of_ranks_.empty() ? 0 : sums_of_ranks_.bytes()),
                                    topology_->world.size());
    for (const Matrix& x : matrices_)
        if (sums_over_tp(x))
            bytes += all_reduce_bytes(static_cast<double>(work(x).projected.bytes()), topology_->tp_size());
    for (Traffic& step : plan) step.add(TrafficGroup::other, bytes);
    return plan;
}

void resolve(Config& config) {
    const bool by_channel = option_text(config.method, "scale_by") == "channel";
    auto& options = config.method.options;
    if (options.at("rank") == "auto" && !by_channel) options.at("rank") = "1";
    if (options.at("alpha") == "auto")
        options.at("alpha") = by_channel ? "1" : fmt::format("{}", std::sqrt(128.0));
    resolve_low_rank(config);
}

}  // namespace

MethodEntry apollo() {
    using Type = MethodOption::Type;
    MethodOption rank = rank_option();
    rank.help = "columns of the projection; auto: hidden_size / 4 by channel, 1 by tensor";
    MethodOption alpha = alpha_option("auto");
    alpha.help = "factor of the learning rate of projected matrices; auto: 1 by channel, sqrt(128) by tensor";
    const MethodOption scale_by{.key = "scale_by",
                                .type = Type::text,
                                .default_value = "channel",
                                .help = "a scale for each channel of the gradient, or one for the tensor",
                                .choices = {"channel", "tensor"}};
    const MethodOption interval{.key = "update_interval",
                                .type = Type::integer,
                                .default_value = "200",
                                .unit = "steps",
                                .help = "between two draws of the projections",
                                .minimum = 1,
                                .maximum = 1e9};
    const MethodOption growth{.key = "growth_limit",
                              .type = Type::real,
                              .default_value = "1.01",
                              .help = "largest ratio of the norms of an update and the one before; 0: none",
                              .minimum = 0,
                              .maximum = 1e9};
    return {.options = {.name = "apollo",
                        .help = "whole weights, whose gradients are scaled by moments of a random projection",
                        .options = {rank, alpha, scale_by, interval, projection_option(), growth},
                        .lr = 1e-2},
            .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<Apollo>(c); },
            .resolve = resolve,
            .check = check_low_rank,
            .guide = {.equation = "R = G P, s_i = |Adam(R)_i| / |R_i|, W -= lr (alpha diag(s) G + weight_decay W)",
                      .source = "Zhu et al. 2024, arXiv 2412.05270",
                      .use = "in place of full where memory for moments is short; every weight learns",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

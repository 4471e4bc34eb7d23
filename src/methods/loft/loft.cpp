// LoFT (Tastan et al. 2025, arXiv 2505.21289): y = x (W + B A)', W frozen, where A and B move in turns, B
// first, as AdamW would move the whole weight, as far as the span of the factor that stays allows
// (coordinates.hpp, factor_move.hpp). Moments of both factors, in coordinates g of the other with the map T:
//   m = b1 m T + (1-b1) g and, for each row, P = b2 T' P T + (1-b2) g' g, in every step.
// The gradient's norm and its clipping are those of the reconstructed gradient g Q' of the factor whose turn
// it is. Everything is of the factors before the step.
#include <algorithm>

#include "core/error.hpp"
#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/pair_moments.hpp"
#include "kernels/scaling.hpp"
#include "kernels/transfer.hpp"
#include "methods/loft/coordinates.hpp"
#include "methods/loft/factor_move.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/places.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

using kernels::num_pairs;

constexpr std::int64_t most_auto_rank = 16;

class Loft : public LowRankMethod {
  public:
    explicit Loft(const Config& config)
        : eps_(option_real(config.method, "eps")),
          low_rank_(option_integer(config.method, "rank")),
          coordinates_(low_rank_, option_real(config.method, "damping_a"),
                       option_real(config.method, "damping_b")) {}

    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void weights_changed(const ModelContext&, std::int64_t step) override;
    void squared_gradient_norm(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    void diagnose(std::span<const double> scalars) override { coordinates_.judge(scalars); }
    void visit_state(StateIo&, Optimizer&) override;
    double update_operations() const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  protected:
    double scale(const ModelContext&) const override { return 1; }
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<LowRankAdapter>(context, linear, low_rank_, scale(context),
                                                FactorLayout::long_rows);
    }
    void adapted(const ModelContext&) override {
        coordinates_.add(*adapted_.back().linear, *adapted_.back().adapter);
    }

  private:
    /// A factor of which this rank owns R rows.
    struct Half {
        std::int64_t pair;
        Side side;
        int number;  // in the optimizer
        FactorMove move;
        Tensor coordinates, products;  // (R, r) f64, shared: g and g Q' Q
        Tensor corrections;            // (2) f64
        kernels::AdamWRows own;        // in update()
    };
    Half make_half(const ModelContext&, Optimizer&, std::int64_t pair, Side) const;
    /// Of a run that began with step 0.
    static Side turn(std::int64_t step) { return step % 2 == 0 ? of_b : of_a; }
    std::int64_t num_adapted() const { return static_cast<std::int64_t>(adapted_.size()); }
    /// Those whose turn it is.
    std::span<Half> moving() { return std::span(halves_).subspan(turn_ * adapted_.size(), adapted_.size()); }
    void measure_reconstructed(Optimizer&);

    double eps_;
    std::int64_t low_rank_;
    Coordinates coordinates_;
    const Topology* topology_ = nullptr;
    Side turn_ = of_b;          // the factor that the next update moves; the overlaps are of the other one
    bool turn_known_ = false;   // from a file
    std::vector<Half> halves_;  // (2 pairs), A first
    Tensor counted_;            // (parameters) f64: 0 for factors, 1 for others
    Tensor one_;                // (1) f64
    std::vector<kernels::PairMoments> moments_;
};

OwnershipPlan Loft::ownership(const ModelContext& context, const Parameter& parameter) {
    OwnershipPlan plan = LowRankMethod::ownership(context, parameter);
    if (find_factor(parameter).first >= 0) plan.v_width = num_pairs(low_rank_);
    return plan;
}

Loft::Half Loft::make_half(const ModelContext& context, Optimizer& optimizer, std::int64_t pair,
                           Side side) const {
    LowRankAdapter& adapter = *adapted_[static_cast<std::size_t>(pair)].adapter;
    const Parameter &factor = side == of_a ? adapter.a() : adapter.b(),
                    &partner = side == of_a ? adapter.b() : adapter.a();
    const int number = optimizer.index_of(&factor);
    const std::int64_t rows = optimizer.owned()[number].num_rows();
    Half half{pair, side, number, FactorMove(context, factor, partner, rows), {}, {}, {}, {}};
    take_shared(context.arena, [&](Places& places) {
        half.coordinates = places.take(DType::f64, {rows, low_rank_});
        half.products = places.take(DType::f64, {rows, low_rank_});
    });
    half.corrections = context.arena.take(MemoryClass::workspace, DType::f64, {2});
    return half;
}

void Loft::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    coordinates_.allocate(context, optimizer.scalars());
    for (const Side side : {of_a, of_b})
        for (std::int64_t i = 0; i < num_adapted(); ++i)
            halves_.push_back(make_half(context, optimizer, i, side));
    std::vector<double> counted(optimizer.owned().size(), 1.0);
    for (const Half& half : halves_) counted[half.number] = 0;
    counted_ =
        context.arena.take(MemoryClass::workspace, DType::f64, {static_cast<std::int64_t>(counted.size())});
    one_ = context.arena.take(MemoryClass::workspace, DType::f64, {1});
    if (context.arena.measuring()) return;
    kernels::upload(counted.data(), counted_);
    kernels::fill(one_, 1);
}

void Loft::initialise(const ModelContext& context) {
    initialise_as_asked(context);
    coordinates_.initialise();
    turn_known_ = false;
}

/// Files of earlier versions do not hold the turn, which is the step's there.
void Loft::weights_changed(const ModelContext&, std::int64_t step) {
    if (!turn_known_) turn_ = turn(step);
    turn_known_ = true;
}

void Loft::squared_gradient_norm(Optimizer& optimizer) {
    std::vector<kernels::RowPart> gradients;
    for (const Half& half : halves_) gradients.push_back(optimizer.owned()[half.number].owned_gradient());
    coordinates_.form(other(turn_), gradients);
    optimizer.measure_gradients([&] { measure_reconstructed(optimizer); });
}

/// What is not finite in a gradient that does not count stays so: 0 times it is NaN.
void Loft::measure_reconstructed(Optimizer& optimizer) {
    const Tensor norms = optimizer.squared_norms();
    kernels::scale_rows(norms.reshape({norms.size(), 1}), counted_);
    for (const Half& half : moving()) {
        const std::int64_t elements = half.coordinates.size();
        if (elements == 0) continue;
        const Tensor &g = half.coordinates, &product = half.products;
        kernels::copy_rows(optimizer.owned()[half.number].owned_gradient(), kernels::whole_rows(g));
        kernels::matmul({.a = g, .b = coordinates_.gram(half.pair, half.side), .c = product});
        kernels::add_row_dots(g.reshape({1, elements}), product.reshape({1, elements}), 1,
                              optimizer.squared_norm_of(half.number));
    }
}

void Loft::update(Optimizer& optimizer, double lr_factor) {
    optimizer.update(lr_factor, [&](const OwnedParameter& owned, const kernels::AdamWSettings& settings) {
        const auto [pair, side] = find_factor(owned.parameter());
        if (pair >= 0)
            halves_[static_cast<std::size_t>(side * num_adapted() + pair)].own = owned.state_rows(settings);
        return pair < 0;
    });
    moments_.clear();
    for (const Half& half : halves_) {
        const kernels::AdamWRows& own = half.own;
        if (own.rows.count == 0) continue;
        moments_.push_back({.m = own.m,
                            .v = own.v,
                            .step = own.step,
                            .gradient = kernels::whole_rows(own.gradient, own.rows),
                            .map = coordinates_.map(half.pair, half.side),
                            .corrections = half.corrections,
                            .beta1 = own.settings.beta1,
                            .beta2 = own.settings.beta2});
    }
    kernels::advance_pair_moments(moments_, optimizer.clip());
    for (const Half& half : moving())
        half.move.run({half.own, half.corrections, coordinates_.divisor(half.pair, half.side), one_, eps_},
                      optimizer.clip(), coordinates_.overlap(half.pair));
    coordinates_.sum_overlaps();
    turn_ = other(turn_);
}

void Loft::visit_state(StateIo& io, Optimizer& optimizer) {
    LowRankMethod::visit_state(io, optimizer);
    coordinates_.visit_state(io);
    turn_known_ = io.has("/method/turn");
    if (!turn_known_) return;
    std::vector<std::int64_t> stored{turn_};
    io.integers("/method/turn", stored, topology_->world.rank());
    turn_ = stored.at(0) == of_a ? of_a : of_b;
}

double Loft::update_operations() const {
    const double r = static_cast<double>(low_rank_), ranks = topology_->world.size();
    double sum = coordinates_.operations();
    for (const Adapted& x : adapted_) {
        const double m = static_cast<double>(x.linear->out().size),
                     n = static_cast<double>(x.linear->in().size);
        sum += m * n * r * (r + 1) + 4 * m * n * r;    // V; M and D Q
        sum += (m + n) * (3 * r * r * r + 3 * r * r);  // moments
        sum += (m + n) * (2 * r * r + 3 * r * r);      // coordinates; norm, moves and overlap of one factor
        sum += ranks * (m + n) * r * (r + 1) / 4;      // products of pairs
    }
    return sum;
}

std::vector<Traffic> Loft::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    std::vector<Traffic> plan = Method::plan_traffic(optimizer, steps);
    for (std::int64_t step = 0; step < steps; ++step) {
        double bytes = coordinates_.bytes();
        for (const Half& half : halves_)
            if (half.side == turn(step)) bytes += half.move.bytes();
        plan[static_cast<std::size_t>(step)].add(TrafficGroup::other, bytes);
    }
    return plan;
}

void check(const Config& config) {
    check_low_rank(config);
    const std::int64_t low_rank = option_integer(config.method, "rank");
    require(
        low_rank <= kernels::most_pair_rank,
        "method.rank = {} is more than {} (the second moments are rank (rank + 1) / 2 numbers for each row "
        "and each column of a weight, {} here, so that memory and operations grow with the square of the "
        "rank); use at most {}",
        low_rank, kernels::most_pair_rank, num_pairs(low_rank), kernels::most_pair_rank);
}

MethodOption small_number(MethodOption option) {
    option.type = MethodOption::Type::real;
    option.minimum = 1e-30;
    option.maximum = 1e9;
    return option;
}

}  // namespace

MethodEntry loft() {
    MethodOption rank = rank_option();
    rank.help = "low rank of A and B, at most 32; auto: hidden_size / 4, at most 16";
    return {
        .options = {.name = "loft",
                    .help = "low-rank factors that move in turns as AdamW would move the whole weight",
                    .options = {rank, strategy_option(), init_option(),
                                small_number({.key = "damping_a",
                                              .default_value = "1e-06",
                                              .help = "added to the diagonal of B' B when A is updated"}),
                                small_number({.key = "damping_b",
                                              .default_value = "1e-08",
                                              .help = "added to the diagonal of A A' when B is updated"}),
                                small_number({.key = "eps",
                                              .default_value = "0.0001",
                                              .help = "added to the root of an element's second moment; "
                                                      "optim.eps serves what is trained dense"})}},
        .create = [](const Config& config) -> std::unique_ptr<Method> {
            return std::make_unique<Loft>(config);
        },
        .resolve = [](Config& config) { resolve_low_rank(config, most_auto_rank); },
        .check = check,
        .guide = {.equation = "y = x (W + B A)'; A and B in turns by AdamW of the whole weight, its moments "
                              "kept in coordinates of the other factor and mapped as that moves",
                  .source = "Tastan et al. 2025, arXiv 2505.21289",
                  .use = "adapting a trained model (run.init_from) at low rank, by the steps of full",
                  .validated = "full rank gives AdamW's weights (1e-10)"}};
}

}  // namespace switchyard::methods

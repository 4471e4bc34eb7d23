// LoFT (Tastan et al. 2025, arXiv 2505.21289): y = x (W + B A)', W frozen, where A and B move in turns, B
// first, as AdamW would move the whole weight, as far as the span of the factor that stays allows. For a
// factor F (L, r) by long rows and its partner Q, both as before the step, with S = (Q' Q + damping I)^-1:
//   coordinates g = dF S of the gradient projected onto the span of Q, map T = Q_old' Q S;
//   for each row, of both factors in every step: m = b1 m T + (1-b1) g, P = b2 T' P T + (1-b2) g' g;
//   for the factor whose turn it is: M = m Q', V_ji = q_i P_j q_i',
//     D = M / (1-b1^t) / (sqrt(V / (1-b2^t)) + eps), F -= lr (D Q S + weight_decay F).
// Where Q has not moved, Q_old' Q is its Gram matrix, so only that of the factor that moved last is kept. The
// gradient's norm and its clipping are those of the reconstructed gradient g Q' of the factor whose turn it
// is. M, V and D never exist whole, but for 64 owned rows at a time.
#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "kernels/cholesky.hpp"
#include "kernels/dots.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/pair_moments.hpp"
#include "kernels/reductions.hpp"
#include "kernels/scaled_descent.hpp"
#include "kernels/scaling.hpp"
#include "kernels/transfer.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/factor_grams.hpp"
#include "methods/parts/places.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

using kernels::matmul;
using kernels::num_pairs;

constexpr std::int64_t chunk_rows = 64, most_auto_rank = 16;

/// A factor of a pair. What is kept for a side in tensors of both, (2 pairs, ...), lies A first.
enum Side : int { of_a = 0, of_b = 1 };
constexpr Side other(Side side) {
    return side == of_a ? of_b : of_a;
}

/// What is needed while a factor moves: R owned rows, and a partner of `local` rows on each of `parts` ranks.
struct MoveWork {
    Tensor gathered;       // (parts, local, r): the partner, compute type
    Tensor partner;        // (parts local, r): the same, accumulate type
    Tensor pairs;          // (parts local, r (r + 1) / 2)
    Tensor first, second;  // (at most 64, parts local): M, then D; V
    Tensor before, after;  // (R, r) f64: the owned values
    std::int64_t bytes;    // of all together

    MoveWork(Places places, DType compute, std::int64_t rows, std::int64_t local, int parts, std::int64_t r)
        : gathered(places.take(compute, {parts > 1 ? parts : 0, local, r})),
          partner(places.take(accumulate_type(compute), {parts * local, r})),
          pairs(places.take(accumulate_type(compute), {parts * local, num_pairs(r)})),
          first(places.take(accumulate_type(compute), {std::min(rows, chunk_rows), parts * local})),
          second(places.take(accumulate_type(compute), {std::min(rows, chunk_rows), parts * local})),
          before(places.take(DType::f64, {rows, r})),
          after(places.take(DType::f64, {rows, r})),
          bytes(places.taken()) {}
};

/// What is needed for the norm of a reconstructed gradient.
struct NormWork {
    Tensor coordinates, products;  // (R, r) f64: g and g Q' Q
    std::int64_t bytes;

    NormWork(Places places, std::int64_t rows, std::int64_t r)
        : coordinates(places.take(DType::f64, {rows, r})),
          products(places.take(DType::f64, {rows, r})),
          bytes(places.taken()) {}
};

class Loft : public LowRankMethod {
  public:
    explicit Loft(const Config& config)
        : damping_{option_real(config.method, "damping_a"), option_real(config.method, "damping_b")},
          eps_(option_real(config.method, "eps")),
          low_rank_(option_integer(config.method, "rank")) {}

    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void begin_step(std::int64_t step) override;
    void squared_gradient_norm(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    void diagnose(std::span<const double> scalars) override;
    void visit_state(StateIo&, Optimizer&) override;
    double update_operations() const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<LowRankAdapter>(context, linear, low_rank_, scale(context),
                                                FactorLayout::long_rows);
    }
    void adapted(const ModelContext&) override {
        products_.add(*adapted_.back().linear, *adapted_.back().adapter);
    }

  private:
    static Side turn(std::int64_t step) { return step % 2 == 0 ? of_b : of_a; }
    std::int64_t count() const { return static_cast<std::int64_t>(adapted_.size()); }
    Parameter& factor(std::int64_t i, Side side) const {
        LowRankAdapter& adapter = *adapted_[static_cast<std::size_t>(i)].adapter;
        return side == of_a ? adapter.a() : adapter.b();
    }
    std::size_t index(std::int64_t i, Side side) const {
        return indices_[static_cast<std::size_t>(side * count() + i)];
    }
    kernels::AdamWRows& state(std::int64_t i, Side side) {
        return states_[static_cast<std::size_t>(side * count() + i)];
    }
    /// (r, r) of a factor, or (pairs, r, r) of all of a side, in a tensor (2 pairs, r, r).
    Tensor square(Tensor of_both, std::int64_t i, Side side) const {
        return of_both.rows(side * count() + i, 1).reshape({low_rank_, low_rank_});
    }
    Tensor squares(Tensor of_both, Side side) const { return of_both.rows(side * count(), count()); }
    Tensor overlap(std::int64_t i) const { return overlaps_.rows(i, 1).reshape({low_rank_, low_rank_}); }
    /// The number of ranks among which a factor is cut over tp.
    int parts(const Parameter& factor) const {
        return factor.tp_gradient == TpGradient::own ? topology_->tp_size() : 1;
    }
    MoveWork move_work(Places, std::int64_t i, Side side, std::int64_t rows) const;

    void form_grams();
    /// Gradients <- coordinates, maps_ <- T.
    void precondition(Optimizer&);
    void measure_reconstructed(Optimizer&) const;
    void move(std::int64_t i, Tensor clip);
    /// All rows of a factor in accumulate type, gathered over tp if it is cut.
    Tensor whole(const Parameter& factor, const MoveWork&) const;

    std::array<double, 2> damping_;  // of the update of A and of B
    double eps_;
    std::int64_t low_rank_;
    FactorGrams products_;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    std::int64_t step_ = 0;             // the step that is being made
    std::vector<std::size_t> indices_;  // of the factors in the optimizer
    std::vector<kernels::AdamWRows> states_;
    kernels::AdamWSettings rates_;  // of this step
    /// (2 pairs, r, r) f64: Q' Q, U of the Cholesky factors, and T, by the side of Q.
    Tensor grams_, divisors_, maps_;
    Tensor overlaps_;     // (pairs, r, r) f64: F_old' F of the factor that moved last
    Tensor corrections_;  // (2 pairs, 2) f64
    Tensor counted_;      // (parameters) f64: 0 for factors, 1 for others
    Tensor one_;          // (1) f64
    Tensor defects_;      // (2 pairs) f64
    Tensor worst_;        // (1) f64 of the step's scalars: the largest of them
    int worst_slot_ = 0;
    Tensor scratch_;  // bytes, shared
    std::vector<kernels::DividedRows> divided_;
    std::vector<kernels::PairMoments> moments_;
};

OwnershipPlan Loft::ownership(const ModelContext& context, const Parameter& parameter) {
    OwnershipPlan plan = LowRankMethod::ownership(context, parameter);
    if (find_factor(parameter).first >= 0) plan.v_width = num_pairs(low_rank_);
    return plan;
}

MoveWork Loft::move_work(Places places, std::int64_t i, Side side, std::int64_t rows) const {
    const Parameter& partner = factor(i, other(side));
    return {places, dtype_, rows, partner.value.dim(0), parts(partner), low_rank_};
}

void Loft::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    dtype_ = context.dtype;
    Arena& arena = context.arena;
    const auto take = [&](MemoryClass of, DType dtype, Shape shape) { return arena.take(of, dtype, shape); };
    const std::int64_t r = low_rank_;
    products_.allocate(context);
    for (Tensor* table : {&grams_, &divisors_, &maps_})
        *table = take(MemoryClass::workspace, DType::f64, {2 * count(), r, r});
    overlaps_ = take(MemoryClass::moments, DType::f64, {count(), r, r});
    corrections_ = take(MemoryClass::workspace, DType::f64, {2 * count(), 2});
    const auto num_parameters = static_cast<std::int64_t>(optimizer.owned().size());
    counted_ = take(MemoryClass::workspace, DType::f64, {num_parameters});
    one_ = take(MemoryClass::workspace, DType::f64, {1});
    defects_ = take(MemoryClass::workspace, DType::f64, {2 * count()});
    worst_slot_ = optimizer.scalars().take();
    worst_ = optimizer.scalars().slots(worst_slot_);
    std::int64_t bytes = 0;
    std::vector<double> counted(static_cast<std::size_t>(num_parameters), 1.0);
    for (const Side side : {of_a, of_b})
        for (std::int64_t i = 0; i < count(); ++i) {
            const auto number = static_cast<std::size_t>(optimizer.index_of(&factor(i, side)));
            const std::int64_t rows = optimizer.owned()[number].num_rows();
            indices_.push_back(number);
            counted[number] = 0;
            bytes = std::max(
                {bytes, move_work(Places(), i, side, rows).bytes, NormWork(Places(), rows, r).bytes});
        }
    states_.resize(indices_.size());
    if (const int ranks = topology_->world.size(); ranks > 1)
        bytes = std::max(bytes, static_cast<std::int64_t>(overlaps_.bytes()) + 64 * ranks);
    scratch_ = arena.shared(DType::u8, {bytes});
    if (arena.measuring()) return;
    kernels::upload(counted.data(), counted_);
    kernels::fill(one_, 1);
}

void Loft::initialise(const ModelContext& context) {
    initialise_as_asked(context);
    kernels::zero(overlaps_);
}

void Loft::begin_step(std::int64_t step) {
    LowRankMethod::begin_step(step);
    step_ = step;
}

void Loft::squared_gradient_norm(Optimizer& optimizer) {
    form_grams();
    precondition(optimizer);
    optimizer.measure_gradients([&] { measure_reconstructed(optimizer); });
}

void Loft::form_grams() {
    kernels::RowBatch batch;
    for (const FactorGrams::Which which : {FactorGrams::Which::cut, FactorGrams::Which::whole}) {
        const Tensor formed = products_.form(which);
        for (std::int64_t i = 0; i < count(); ++i) {
            const Side side = &products_.partner(i, which) == &factor(i, of_b) ? of_a : of_b;
            batch.copy(kernels::whole_rows(formed.rows(i, 1).reshape({low_rank_, low_rank_})),
                       kernels::whole_rows(square(grams_, i, side)));
        }
        batch.run();
    }
}

void Loft::precondition(Optimizer& optimizer) {
    kernels::copy(grams_, divisors_);
    const Side stayed = turn(step_), moved = other(stayed);  // in the last step
    kernels::copy(squares(grams_, stayed), squares(maps_, stayed));
    kernels::copy(overlaps_, squares(maps_, moved));
    divided_.clear();
    for (const Side side : {of_a, of_b}) {
        kernels::cholesky(squares(divisors_, side), damping_[other(side)],
                          defects_.rows(side * count(), count()));
        for (std::int64_t i = 0; i < count(); ++i) {
            const OwnedParameter& trained = optimizer.owned()[index(i, other(side))];
            divided_.push_back({square(divisors_, i, side), kernels::whole_rows(square(maps_, i, side))});
            divided_.push_back({square(divisors_, i, side), trained.owned_gradient()});
        }
    }
    kernels::solve_rows(divided_);
    kernels::max_abs(defects_, worst_);
}

/// What is not finite in a gradient that does not count stays so: 0 times it is NaN.
void Loft::measure_reconstructed(Optimizer& optimizer) const {
    const Tensor norms = optimizer.squared_norms();
    kernels::scale_rows(norms.reshape({norms.size(), 1}), counted_);
    const Side side = turn(step_);
    for (std::int64_t i = 0; i < count(); ++i) {
        const kernels::RowPart own = optimizer.owned()[index(i, side)].owned_gradient();
        const std::int64_t rows = own.rows.count;
        if (rows == 0) continue;
        const NormWork at(Places(scratch_), rows, low_rank_);
        const Shape flat{1, rows * low_rank_};
        kernels::copy_rows(own, kernels::whole_rows(at.coordinates));
        matmul({.a = at.coordinates, .b = square(grams_, i, other(side)), .c = at.products});
        kernels::add_row_dots(at.coordinates.reshape(flat), at.products.reshape(flat), 1,
                              optimizer.squared_norm_of(static_cast<int>(index(i, side))));
    }
}

void Loft::update(Optimizer& optimizer, double lr_factor) {
    optimizer.update(lr_factor, [&](const OwnedParameter& owned, const kernels::AdamWSettings& settings) {
        const auto [matrix, number] = find_factor(owned.parameter());
        if (matrix < 0) return true;
        state(matrix, static_cast<Side>(number)) = owned.state_rows(settings);
        rates_ = settings;
        return false;
    });
    moments_.clear();
    for (const Side side : {of_a, of_b})
        for (std::int64_t i = 0; i < count(); ++i) {
            const kernels::AdamWRows& own = state(i, side);
            if (own.rows.count == 0) continue;
            moments_.push_back({.m = own.m,
                                .v = own.v,
                                .step = own.step,
                                .gradient = kernels::whole_rows(own.gradient, own.rows),
                                .map = square(maps_, i, other(side)),
                                .corrections = corrections_.rows(side * count() + i, 1).reshape({2}),
                                .beta1 = rates_.beta1,
                                .beta2 = rates_.beta2});
        }
    kernels::advance_pair_moments(moments_, optimizer.clip());
    for (std::int64_t i = 0; i < count(); ++i) move(i, optimizer.clip());
    start_all_reduce(topology_->world, overlaps_, scratch_, *traffic_, TrafficGroup::other).wait();
}

Tensor Loft::whole(const Parameter& factor, const MoveWork& at) const {
    Tensor all = factor.value;
    if (parts(factor) > 1) {
        start_all_gather(topology_->tp, factor.value, at.gathered, *traffic_, TrafficGroup::other).wait();
        all = at.gathered.reshape(at.partner.shape());
    }
    if (all.dtype() == at.partner.dtype()) return all;
    kernels::copy(all, at.partner);
    return at.partner;
}

/// The moves D Q replace the gradient's rows, whose coordinates are in the moments.
void Loft::move(std::int64_t i, Tensor clip) {
    const Side side = turn(step_);
    const kernels::AdamWRows& own = state(i, side);
    const std::int64_t rows = own.rows.count;
    const MoveWork at = move_work(Places(scratch_), i, side, rows);
    const Tensor partner = whole(factor(i, other(side)), at);
    if (rows == 0) return kernels::zero(overlap(i));
    internal_check(own.rows.list.empty(), "{}: the owned rows are not a range", factor(i, side).shard.name);
    const Tensor moves = own.gradient.rows(own.rows.first, rows),
                 value = own.value.rows(own.rows.first, rows),
                 corrections = corrections_.rows(side * count() + i, 1).reshape({2});
    kernels::copy(value, at.before);
    kernels::pair_products(partner, at.pairs);
    for (std::int64_t begin = 0; begin < rows; begin += chunk_rows) {
        const std::int64_t some = std::min(chunk_rows, rows - begin);
        const Tensor first = at.first.rows(0, some), second = at.second.rows(0, some);
        matmul({.a = own.m.rows(begin, some), .b = partner, .c = first, .op_b = kernels::Op::transpose});
        matmul({.a = own.v.rows(begin, some), .b = at.pairs, .c = second, .op_b = kernels::Op::transpose});
        kernels::pair_direction(first, second, corrections, eps_);
        matmul({.a = first, .b = partner, .c = moves.rows(begin, some)});
    }
    const kernels::DividedRows divided{square(divisors_, i, other(side)), kernels::whole_rows(moves)};
    kernels::solve_rows({&divided, 1});
    const kernels::ScaledRows descent{.master = own.master,
                                      .gradient = own.gradient,
                                      .value = own.value,
                                      .rows = own.rows,
                                      .factor = one_,
                                      .lr = rates_.lr,
                                      .weight_decay = rates_.weight_decay};
    kernels::scaled_descent({&descent, 1}, clip);
    kernels::copy(value, at.after);
    matmul({.a = at.before, .b = at.after, .c = overlap(i), .op_a = kernels::Op::transpose});
}

/// All ranks have the same Gram matrices, so the verdict is the same. Coordinates by such a matrix may be
/// NaN.
void Loft::diagnose(std::span<const double> scalars) {
    if (scalars[static_cast<std::size_t>(worst_slot_)] == 0) return;
    std::vector<double> defects(static_cast<std::size_t>(defects_.size()));
    kernels::download(defects_, defects.data());
    std::size_t first = 0;
    while (first + 1 < defects.size() && defects[first] == 0) ++first;
    const std::size_t pairs = adapted_.size();
    const bool of_a_itself = first < pairs;
    fail<AgreedError>(
        "{} of {} plus method.damping_{} = {} is not positive definite (the gradient of {} has no "
        "coordinates: "
        "the factors are very large or their vectors dependent, and the damping is below the rounding); "
        "resume "
        "from the last checkpoint with a larger method.damping_{} or a smaller optim.lr",
        of_a_itself ? "A A'" : "B' B", adapted_[first % pairs].linear->name(), of_a_itself ? "b" : "a",
        damping_[of_a_itself ? of_b : of_a], of_a_itself ? "B" : "A", of_a_itself ? "b" : "a");
}

void Loft::visit_state(StateIo& io, Optimizer& optimizer) {
    LowRankMethod::visit_state(io, optimizer);
    for (std::int64_t i = 0; i < count(); ++i) {
        const std::string path =
            fmt::format("/method/{}/overlap", adapted_[static_cast<std::size_t>(i)].linear->name());
        io.tensor(path, {path, {low_rank_, low_rank_}, 0, 0, low_rank_, low_rank_, topology_->world.rank()},
                  overlap(i));
    }
}

double Loft::update_operations() const {
    const double r = static_cast<double>(low_rank_), ranks = topology_->world.size();
    double sum = products_.operations();
    for (const Adapted& x : adapted_) {
        const double m = static_cast<double>(x.linear->out().size),
                     n = static_cast<double>(x.linear->in().size);
        sum += m * n * r * (r + 1) + 4 * m * n * r;    // V; M and D Q
        sum += (m + n) * (3 * r * r * r + 3 * r * r);  // moments
        sum += (m + n) * (2 * r * r + 3 * r * r);      // coordinates; norm, moves and overlap of one factor
        sum +=
            ranks * ((m + n) * r * (r + 1) / 4 + 5 * r * r * r);  // products of pairs; Cholesky factors, maps
    }
    return sum;
}

std::vector<Traffic> Loft::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    std::vector<Traffic> plan = Method::plan_traffic(optimizer, steps);
    const double always =
        products_.bytes() + all_reduce_bytes(static_cast<double>(overlaps_.bytes()), topology_->world.size());
    for (std::int64_t step = 0; step < steps; ++step) {
        Traffic& traffic = plan[static_cast<std::size_t>(step)];
        traffic.add(TrafficGroup::other, always);
        for (std::int64_t i = 0; i < count(); ++i) {
            const Parameter& partner = factor(i, other(turn(step)));
            const int ranks = parts(partner);
            traffic.add(TrafficGroup::other,
                        all_gather_bytes(static_cast<double>(partner.value.bytes()) * ranks, ranks));
        }
    }
    return plan;
}

void resolve(Config& config) {
    auto& options = config.method.options;
    if (options.at("rank") == "auto")
        options.at("rank") =
            std::to_string(std::clamp<std::int64_t>(config.model.hidden_size / 4, 1, most_auto_rank));
    if (options.at("alpha") == "auto") options.at("alpha") = options.at("rank");
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
    const double alpha = option_real(config.method, "alpha");
    require(alpha == static_cast<double>(low_rank),
            "method.alpha = {} is not method.rank = {} (the moments are those of the weight that B A moves "
            "without a factor, so that alpha / rank is 1); leave method.alpha at auto",
            alpha, low_rank);
}

MethodOption small_number(const std::string& key, const std::string& default_value, const std::string& help) {
    return {.key = key,
            .type = MethodOption::Type::real,
            .default_value = default_value,
            .help = help,
            .minimum = 1e-30,
            .maximum = 1e9};
}

}  // namespace

MethodEntry loft() {
    MethodOption rank = rank_option();
    rank.help = "low rank of A and B, at most 32; auto: hidden_size / 4, at most 16";
    MethodOption alpha = alpha_option("auto");
    alpha.help = "must be the rank, which auto says: the low-rank product has no factor";
    return {
        .options = {.name = "loft",
                    .help = "low-rank factors that move in turns as AdamW would move the whole weight",
                    .options = {rank, alpha, strategy_option(), init_option(),
                                small_number("damping_a", "1e-06",
                                             "added to the diagonal of B' B when A is updated"),
                                small_number("damping_b", "1e-08",
                                             "added to the diagonal of A A' when B is updated"),
                                small_number("eps", "0.0001",
                                             "added to the root of an element's second moment; optim.eps "
                                             "serves what is trained dense")}},
        .create = [](const Config& config) -> std::unique_ptr<Method> {
            return std::make_unique<Loft>(config);
        },
        .resolve = resolve,
        .check = check,
        .guide = {.equation = "as lora with alpha = rank; A and B in turns by AdamW of the whole weight, its "
                              "moments kept in coordinates of the other factor and mapped as that moves",
                  .source = "Tastan et al. 2025, arXiv 2505.21289",
                  .use = "adapting a trained model (run.init_from) at low rank, by the steps of full",
                  .validated = "full rank gives AdamW's weights (1e-10)"}};
}

}  // namespace switchyard::methods

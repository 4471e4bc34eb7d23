// Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982): B = mu B + (1 - mu) G; O = the Newton-Schulz
// image of B or, with Nesterov's form, of mu B + (1 - mu) G; W -= lr (scale O + wd W), for the linears of the
// blocks. Embedding, head and norms are trained by AdamW. The state of a matrix, B and the master, belongs to
// one data-parallel rank; where tp cuts the matrix, one tp rank of it gets the whole direction and gives O
// back.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "kernels/momentum.hpp"
#include "kernels/rows.hpp"
#include "methods/muon/newton_schulz.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

struct Matrix {
    Linear* linear = nullptr;
    int dp_rank = 0, tp_rank = 0;  // the owner of the state, and who orthogonalises
    OwnedParameter* owned = nullptr;

    std::int64_t elements() const { return linear->out().size * linear->in().size; }
    bool cut_by_rows() const { return linear->split() == Split::column; }
    /// The local block, and `parts` of them beside each other: the whole with padding.
    std::int64_t rows() const { return linear->out().padded; }
    std::int64_t cols() const { return linear->in().padded; }
    std::int64_t whole_rows(int parts) const { return cut_by_rows() ? rows() * parts : rows(); }
    std::int64_t whole_cols(int parts) const { return cut_by_rows() ? cols() : cols() * parts; }
};

class Muon : public Method {
  public:
    explicit Muon(const Config& config)
        : momentum_(option_real(config.method, "momentum")),
          nesterov_(option_boolean(config.method, "nesterov")),
          iterations_(static_cast<int>(option_integer(config.method, "iterations"))),
          as_adamw_(option_text(config.method, "update_scale") == "match_rms_adamw") {}

    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) override;
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    double update_operations() const override;
    std::vector<std::string> notes(const Config&) const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  private:
    /// Matrices of this data-parallel rank that are orthogonalised side by side, by tp rank; null: none.
    using Round = std::vector<const Matrix*>;
    using Tensors = std::vector<Tensor>;  // by tp rank; empty: nothing is sent

    void assign_owners(const Topology&);
    void update_round(const Round&, Tensor clip) const;
    /// The place of tp rank t's block of a whole matrix.
    Tensor block(const Matrix&, Tensor whole, Tensor spare, int t) const;
    /// Blocks that are columns: between their places in `spare` and the whole.
    void move_columns(const Matrix&, Tensor whole, Tensor spare, bool to_whole) const;
    /// Blocks of O, but for NewtonSchulz::scale(), from the direction in the iteration's input.
    Tensors orthogonalised(const Matrix&) const;
    void exchange(const Tensors& send, const Tensors& received) const;
    double update_scale(const Matrix&) const;

    double momentum_;
    bool nesterov_;
    int iterations_;
    bool as_adamw_;
    std::vector<Matrix> matrices_;
    std::vector<Round> rounds_;
    const Comm* tp_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    double uneven_ = 1;  // the most elements of a data-parallel rank over their mean
    NewtonSchulz iteration_;
    Tensor blocks_;                 // (P, elements of the largest block): those of other ranks' matrices
    kernels::AdamWSettings rates_;  // of this step
};

/// Shares of `all` (indices) for `ranks`: each item, from the largest cost down, goes to the rank that has
/// least (Graham 1969). give(index, rank)
template <class Costs, class Give>
std::vector<double> share_out(std::vector<std::size_t> all, int ranks, const Costs& cost, const Give& give) {
    std::stable_sort(all.begin(), all.end(), [&](auto x, auto y) { return cost(x) > cost(y); });
    std::vector<double> load(static_cast<std::size_t>(ranks), 0.0);
    for (const std::size_t i : all) {
        const auto least = std::min_element(load.begin(), load.end());
        *least += cost(i);
        give(i, static_cast<int>(least - load.begin()));
    }
    return load;
}

std::unique_ptr<Adapter> Muon::attach(const ModelContext&, Linear& linear) {
    matrices_.push_back({.linear = &linear});
    return nullptr;
}

/// By values over dp, because state and messages go by them; by operations over the tp ranks of each.
void Muon::assign_owners(const Topology& topology) {
    tp_ = &topology.tp;
    std::vector<std::size_t> all(matrices_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    const auto elements = [&](std::size_t i) { return static_cast<double>(matrices_[i].elements()); };
    const std::vector<double> load =
        share_out(all, topology.dp_size(), elements, [&](std::size_t i, int d) { matrices_[i].dp_rank = d; });
    uneven_ = *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) /
              std::accumulate(load.begin(), load.end(), 0.0);
    std::erase_if(all, [&](std::size_t i) { return matrices_[i].dp_rank != topology.dp_rank(); });
    const auto operations = [&](std::size_t i) {
        const Linear& linear = *matrices_[i].linear;
        return NewtonSchulz::operations(linear.out().size, linear.in().size, iterations_);
    };
    share_out(all, tp_->size(), operations, [&](std::size_t i, int t) { matrices_[i].tp_rank = t; });
    for (const std::size_t i : all) {
        const auto t = static_cast<std::size_t>(matrices_[i].tp_rank);
        auto round = std::find_if(rounds_.begin(), rounds_.end(), [&](const Round& r) { return !r[t]; });
        if (round == rounds_.end())
            round = rounds_.insert(round, Round(static_cast<std::size_t>(tp_->size())));
        (*round)[t] = &matrices_[i];
    }
}

OwnershipPlan Muon::ownership(const ModelContext& context, const Parameter& parameter) {
    if (parameter.role != ParameterRole::weight) return Method::ownership(context, parameter);
    if (!tp_) assign_owners(context.topology);
    const auto found = std::find_if(matrices_.begin(), matrices_.end(),
                                    [&](const Matrix& x) { return &x.linear->dense() == &parameter; });
    internal_check(found != matrices_.end(), "{}: a weight of no linear", parameter.shard.name);
    const Comm& dp = owner_group(context.topology, parameter.tp_gradient);
    const std::int64_t rows = parameter.value.dim(0);
    return {.owners = {&dp, std::vector<int>(static_cast<std::size_t>(rows), found->dp_rank)},
            .capacity = found->dp_rank == dp.rank() ? rows : 0,
            .v_width = 0};
}

void Muon::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    traffic_ = &context.traffic;
    dtype_ = context.dtype;
    const int parts = tp_->size();
    std::int64_t largest = 0;
    for (Matrix& x : matrices_) {
        x.owned = &optimizer.owned()[static_cast<std::size_t>(optimizer.index_of(&x.linear->dense()))];
        iteration_.expect(x.whole_rows(parts), x.whole_cols(parts));
        largest = std::max(largest, x.rows() * x.cols());
    }
    iteration_.allocate(context.arena, context.dtype);
    if (parts > 1) blocks_ = context.arena.take(MemoryClass::workspace, context.dtype, {parts, largest});
}

void Muon::update(Optimizer& optimizer, double lr_factor) {
    optimizer.update(lr_factor, [&](const OwnedParameter& owned, const kernels::AdamWSettings& settings) {
        if (owned.parameter().role != ParameterRole::weight) return true;
        rates_ = settings;
        return false;
    });
    for (const Round& round : rounds_) update_round(round, optimizer.clip());
}

Tensor Muon::block(const Matrix& x, Tensor whole, Tensor spare, int t) const {
    if (tp_->size() == 1) return whole;
    if (x.cut_by_rows()) return whole.rows(t * x.rows(), x.rows());
    return spare.reshape({tp_->size() * x.rows(), x.cols()}).rows(t * x.rows(), x.rows());
}

void Muon::move_columns(const Matrix& x, Tensor whole, Tensor spare, bool to_whole) const {
    if (tp_->size() == 1 || x.cut_by_rows()) return;
    kernels::RowBatch batch;
    for (int t = 0; t < tp_->size(); ++t) {
        const kernels::RowPart apart = kernels::whole_rows(block(x, whole, spare, t)),
                               inside{whole, kernels::Rows::range(0, x.rows()), t * x.cols(), x.cols()};
        to_whole ? batch.copy(apart, inside) : batch.copy(inside, apart);
    }
    batch.run();
}

Muon::Tensors Muon::orthogonalised(const Matrix& x) const {
    const std::int64_t m = x.whole_rows(tp_->size()), n = x.whole_cols(tp_->size());
    const Tensor input = iteration_.input(m, n), spare = iteration_.spare(m, n);
    move_columns(x, input, spare, true);
    const Tensor result = iteration_.run(m, n, iterations_),
                 other = result.raw() == input.raw() ? spare : input;
    move_columns(x, result, other, false);
    Tensors blocks;
    for (int t = 0; t < tp_->size(); ++t) blocks.push_back(block(x, result, other, t));
    return blocks;
}

void Muon::exchange(const Tensors& send, const Tensors& received) const {
    if (tp_->size() > 1) start_exchange(*tp_, send, received, *traffic_, TrafficGroup::other).wait();
}

double Muon::update_scale(const Matrix& x) const {
    const auto m = static_cast<double>(x.linear->out().size), n = static_cast<double>(x.linear->in().size);
    return as_adamw_ ? 0.2 * std::sqrt(std::max(m, n)) : std::sqrt(std::max(1.0, m / n));
}

/// here[t]: this rank's block of the matrix of tp rank t; there[t]: tp rank t's block of this rank's matrix.
void Muon::update_round(const Round& round, Tensor clip) const {
    const auto parts = round.size(), self = static_cast<std::size_t>(tp_->rank());
    const Matrix* mine = round[self];
    const Tensor nothing(nullptr, dtype_, {0});
    Tensors here(parts, nothing), there(parts, nothing);
    if (mine) {
        const std::int64_t m = mine->whole_rows(tp_->size()), n = mine->whole_cols(tp_->size());
        for (std::size_t t = 0; t < parts; ++t)
            there[t] = block(*mine, iteration_.input(m, n), iteration_.spare(m, n), static_cast<int>(t));
    }
    for (std::size_t t = 0; t < parts; ++t) {
        if (!round[t]) continue;
        const Matrix& x = *round[t];
        const Shape shape{x.rows(), x.cols()};
        here[t] =
            t == self ? there[t] : blocks_.rows(static_cast<std::int64_t>(t), 1).view(blocks_.dtype(), shape);
        const kernels::AdamWRows state = x.owned->state_rows({});
        kernels::momentum({.m = state.m,
                           .gradient = state.gradient,
                           .direction = here[t],
                           .momentum = momentum_,
                           .nesterov = nesterov_},
                          clip);
    }
    exchange(here, there);
    if (mine) {
        there = orthogonalised(*mine);
        here[self] = there[self];
    }
    exchange(there, here);
    for (std::size_t t = 0; t < parts; ++t) {
        if (!round[t]) continue;
        const kernels::AdamWRows state = round[t]->owned->state_rows({});
        kernels::apply_direction(
            {.master = state.master,
             .direction = here[t],
             .value = state.value,
             .decay = 1 - rates_.lr * rates_.weight_decay,
             .scale = -rates_.lr * update_scale(*round[t]) * NewtonSchulz::scale(iterations_)},
            clip);
    }
}

double Muon::update_operations() const {
    double sum = 0;
    for (const Matrix& x : matrices_)
        sum += NewtonSchulz::operations(x.linear->out().size, x.linear->in().size, iterations_);
    return sum;
}

std::vector<std::string> Muon::notes(const Config&) const {
    if (uneven_ < 1.25) return {};
    return {fmt::format(
        "the linears' matrices do not divide evenly among the data-parallel ranks, and one has {:.1f} times "
        "the mean: memory, bytes and time of the update are as if all had; fewer ranks, or a larger "
        "parallel.tp, divide better",
        uneven_)};
}

std::vector<Traffic> Muon::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    Traffic step = optimizer.plan_traffic();
    const std::size_t self = static_cast<std::size_t>(tp_->rank());
    const auto add = [&](const Matrix& x, double blocks) {
        step.add(TrafficGroup::other,
                 blocks * static_cast<double>(x.rows() * x.cols()) * static_cast<double>(size_of(dtype_)));
    };
    for (const Round& round : rounds_)
        for (std::size_t t = 0; t < round.size(); ++t)
            if (round[t]) add(*round[t], t == self ? static_cast<double>(round.size() - 1) : 1);
    return std::vector<Traffic>(static_cast<std::size_t>(steps), step);
}

}  // namespace

MethodEntry muon() {
    using Type = MethodOption::Type;
    const MethodOption momentum{.key = "momentum",
                                .type = Type::real,
                                .default_value = "0.95",
                                .help = "weight of the first moment's past",
                                .minimum = 0,
                                .maximum = 0.9999};
    const MethodOption nesterov{.key = "nesterov",
                                .type = Type::boolean,
                                .default_value = "true",
                                .help = "the direction looks one step ahead of the moment"};
    const MethodOption iterations{.key = "iterations",
                                  .type = Type::integer,
                                  .default_value = "5",
                                  .help = "Newton-Schulz steps of an update",
                                  .minimum = 1,
                                  .maximum = 20};
    const MethodOption scale{
        .key = "update_scale",
        .type = Type::text,
        .default_value = "match_rms_adamw",
        .help = "0.2 sqrt(max(out, in)), for rates of AdamW; original: sqrt(max(1, out / in))",
        .choices = {"match_rms_adamw", "original"}};
    return {.options = {.name = "muon",
                        .help = "whole weights moved along their orthogonalised momentum",
                        .options = {momentum, nesterov, iterations, scale}},
            .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<Muon>(c); },
            .guide = {.equation = "B = mu B + (1 - mu) G, O = B with singular values near 1, W -= lr (scale O + "
                                  "weight_decay W)",
                      .source = "Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982",
                      .use = "pretraining in place of full: half its optimizer state; every weight learns",
                      .validated = "ten steps of torch.optim.Muon in f64 (1e-9)"}};
}

}  // namespace switchyard::methods

// Plain LoRA on every linear of the blocks (Hu et al. 2021).
#include "methods/low_rank_method.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"

namespace switchyard {

std::int64_t LowRankMethod::low_rank(const ModelContext& context) const {
    return option_integer(context.config.method, "rank");
}

double LowRankMethod::scale(const ModelContext& context) const {
    return option_real(context.config.method, "alpha") / static_cast<double>(low_rank(context));
}

GroupAdapters LowRankMethod::attach_group(const ModelContext& context, LinearGroup& group) {
    const std::span<Linear> linears = group.linears();
    GroupAdapters result;
    SharedPairs made;
    for (const Linear& linear : linears)
        if (auto adapter = make_adapter(context, linear)) made.pairs.push_back(std::move(adapter));
    if (made.pairs.empty()) made = make_shared_pairs(context, linears, low_rank(context), scale(context));
    internal_check(made.pairs.size() == linears.size(), "{} of {} linears of a group have an adapter",
                   made.pairs.size(), linears.size());
    for (std::size_t i = 0; i < linears.size(); ++i) {
        add(context, linears[i], *made.pairs[i]);
        result.of_linear.push_back(std::move(made.pairs[i]));
    }
    result.shared = std::move(made.products);
    return result;
}

void LowRankMethod::add(const ModelContext& context, Linear& linear, LowRankAdapter& adapter) {
    Adapted& x = adapted_.emplace_back(Adapted{&linear, &adapter, {}});
    for (int side : {0, 1}) {
        const Parameter& factor = side == 0 ? adapter.a() : adapter.b();
        const Comm& owners = owner_group(context.topology, factor.tp_gradient);
        x.side_number[side] = num_sides_[{&owners, factor.value.dim(1)}]++;
    }
    adapted(context);
}

std::pair<int, int> LowRankMethod::find_factor(const Parameter& parameter) const {
    for (int i = 0; i < static_cast<int>(adapted_.size()); ++i) {
        if (&adapted_[i].adapter->a() == &parameter) return {i, 0};
        if (&adapted_[i].adapter->b() == &parameter) return {i, 1};
    }
    return {-1, 0};
}

HomeRule LowRankMethod::home_rule(const ModelContext& context, int side_number, const Comm& group,
                                  std::int64_t low_rank) {
    return {low_rank, side_number * stagger_step(group.size()), context.config.parallel.rotate, group.size()};
}

OwnershipPlan LowRankMethod::ownership(const ModelContext& context, const Parameter& parameter) {
    const auto [matrix, side] = find_factor(parameter);
    if (matrix < 0 || adapted_[matrix].adapter->layout() == FactorLayout::long_rows)
        return Method::ownership(context, parameter);
    const Comm& group = owner_group(context.topology, parameter.tp_gradient);
    const std::int64_t rows = parameter.value.dim(0);
    std::vector<int> slots(rows);
    for (std::int64_t slot = 0; slot < rows; ++slot) slots[slot] = static_cast<int>(slot);
    const int number = adapted_[matrix].side_number[side];
    OwnershipPlan plan;
    plan.owners = slot_owners(group, home_rule(context, number, group, rows), slots);
    for (int owner : plan.owners.owner) plan.capacity += owner == group.rank();
    plan.step_per_row = true;
    return plan;
}

void LowRankMethod::draw(const ModelContext& context, const Adapted& x, Parameter& factor, double bound) {
    const std::uint64_t key = stream_key(context.config.run.seed, factor.shard.name);
    const Extent& width = &factor == &x.adapter->a() ? x.linear->in() : x.linear->out();
    x.adapter->fill_slots(factor, [&](Tensor slots) {
        const std::int64_t r = slots.dim(0);
        kernels::fill_uniform(slots, {width.size, 0, width.begin, r, width.count}, key, bound);
    });
}

void LowRankMethod::initialise_plain(const ModelContext& context) {
    for (const Adapted& x : adapted_) {
        const double bound = 1 / std::sqrt(static_cast<double>(x.linear->in().size));
        draw(context, x, x.adapter->a(), bound);
        kernels::zero(x.adapter->b().value);
    }
}

void LowRankMethod::initialise_as_asked(const ModelContext& context) {
    if (option_text(context.config.method, "init") == "plain") return initialise_plain(context);
    for (const Adapted& x : adapted_) {  // as in the baseline of the SwitchLoRA paper, section 4.1
        const FactorBounds bounds =
            switchlora_bounds(x.linear->out().size, x.linear->in().size, x.adapter->low_rank());
        draw(context, x, x.adapter->a(), bounds.a);
        draw(context, x, x.adapter->b(), bounds.b);
        x.adapter->subtract_from_base(*x.linear);
    }
}

void LowRankMethod::begin_step(std::int64_t) {
    std::vector<Tensor> sums;
    for (const Adapted& x : adapted_)
        if (!x.adapter->weight_gradient().empty()) sums.push_back(x.adapter->weight_gradient());
    if (!sums.empty()) kernels::zero(sums);
}

void LowRankMethod::reduce_gradients(Optimizer& optimizer) {
    for (const Adapted& x : adapted_) x.adapter->gradients_from_weight();
    optimizer.reduce_gradients();
}

void LowRankMethod::visit_state(StateIo& io, Optimizer&) {
    for (const Adapted& x : adapted_)
        for (const Parameter* factor : {&x.adapter->a(), &x.adapter->b()})
            io.note("/model/" + factor->shard.name, "scale", x.adapter->scale());
}

namespace {

/// Of the pair of any linear.
std::int64_t largest_rank(const ModelConfig& m) {
    return std::min({m.hidden_size, m.kv_size(), m.ffn_size});
}

}  // namespace

void resolve_low_rank(Config& config, std::int64_t most) {
    std::string& low_rank = config.method.options.at("rank");
    if (low_rank != "auto") return;
    const std::int64_t fits = std::min({config.model.hidden_size / 4, largest_rank(config.model), most});
    low_rank = std::to_string(std::max<std::int64_t>(1, fits));
}

void resolve_low_rank(Config& config) {
    resolve_low_rank(config, std::numeric_limits<std::int64_t>::max());
}

void check_low_rank(const Config& config) {
    const std::int64_t low_rank = option_integer(config.method, "rank");
    const ModelConfig& m = config.model;
    const std::int64_t largest = largest_rank(m);
    require(low_rank >= 1 && low_rank <= largest,
            "method.rank = {} does not fit a matrix of {} x {} (a low-rank pair has at least 1 and at most "
            "min(m, n) vectors; hidden {}, key-value heads {}, feed-forward {}); use 1 to {}",
            low_rank, m.hidden_size, largest, m.hidden_size, m.kv_size(), m.ffn_size, largest);
}

MethodOption rank_option() {
    return {.key = "rank",
            .type = MethodOption::Type::integer,
            .default_value = "auto",
            .help = "low rank of A and B; auto: hidden_size / 4, at most the width of keys and values",
            .minimum = 1,
            .maximum = 1e9};
}

MethodOption alpha_option(const std::string& default_value) {
    return {.key = "alpha",
            .type = MethodOption::Type::real,
            .default_value = default_value,
            .help = "the low-rank product is scaled by alpha / rank",
            .minimum = 0,
            .maximum = 1e9};
}

MethodOption strategy_option() {
    return {.key = "strategy",
            .type = MethodOption::Type::text,
            .default_value = "auto",
            .help = "order of products; auto: merged where it has fewer operations, else unmerged",
            .choices = {"auto", "unmerged", "merged", "weight_gradient"}};
}

MethodOption init_option() {
    return {.key = "init",
            .type = MethodOption::Type::text,
            .default_value = "plain",
            .help = "plain: A uniform, B zero; switchlora: both drawn as there",
            .choices = {"plain", "switchlora"}};
}

void fill_factor_row(const Parameter& factor, Tensor row, std::int64_t global_row, std::uint64_t key,
                     double bound) {
    kernels::fill_uniform(row, {factor.shard.global[1], global_row, factor.shard.col0, 1, factor.shard.cols},
                          key, bound);
}

FactorBounds switchlora_bounds(std::int64_t out, std::int64_t in, std::int64_t low_rank) {
    const double m = static_cast<double>(out), n = static_cast<double>(in), r = static_cast<double>(low_rank);
    const double gain = 1 / std::sqrt(3.0);
    const double std_a = std::pow(std::sqrt(m) * r / (std::sqrt(n) * n), 0.25) * std::sqrt(gain);
    const double std_b = std::pow(r / std::sqrt(m * n), 0.25) * std::sqrt(gain);
    return {std::sqrt(3.0) * std_a, std::sqrt(3.0) * std_b};
}

}  // namespace switchyard

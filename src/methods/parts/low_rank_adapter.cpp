// The pair of one linear, and the pairs of a group.
#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {
namespace {

Parameter make_factor(const std::string& name, const Extent& extent, bool split, Tensor value,
                      Tensor gradient) {
    const std::int64_t low_rank = value.dim(0);
    Parameter p;
    p.shard = {name, {low_rank, extent.size}, 0, extent.begin, low_rank, extent.count, 0};
    p.value = value;
    p.gradient = gradient;
    p.tp_gradient = split ? TpGradient::own : TpGradient::partial;
    return p;
}

Tensor take_values(const ModelContext& context, std::int64_t slots, const Extent& extent) {
    return context.arena.take(MemoryClass::trainable, context.dtype, {slots, extent.padded});
}

Tensor take_gradients(const ModelContext& context, std::int64_t slots, const Extent& extent) {
    return context.arena.take(MemoryClass::gradients, context.accumulate(), {slots, extent.padded});
}

bool merging_pays_in(const ModelContext& context, std::span<const Linear> linears) {
    return merging_pays(linears,
                        context.config.data.global_batch / context.topology.dp_size() * context.seq_len);
}

}  // namespace

bool merging_pays(std::span<const Linear> linears, std::int64_t tokens_per_step) {
    std::int64_t spent = 0, saved = 0;
    for (const Linear& linear : linears) {
        const std::int64_t m = linear.out().padded, n = linear.in().padded;
        spent += m * n;
        saved += (m + n) * tokens_per_step;
    }
    return saved > spent;
}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                               double scale)
    : LowRankAdapter(context, linear, take_values(context, low_rank, linear.in()),
                     take_gradients(context, low_rank, linear.in()), scale,
                     merging_pays_in(context, {&linear, 1})) {}

LowRankAdapter::LowRankAdapter(const ModelContext& context, const Linear& linear, Tensor a, Tensor d_a,
                               double scale, bool merged)
    : scale_(scale),
      merged_(merged),
      a_(make_factor(linear.name() + ".lora_A", linear.in(), linear.split() == Split::row, a, d_a)),
      b_(make_factor(linear.name() + ".lora_B", linear.out(), linear.split() == Split::column,
                     take_values(context, a.dim(0), linear.out()),
                     take_gradients(context, a.dim(0), linear.out()))),
      products_(context, a, d_a, {{b_.value, b_.gradient, scale}}) {
    b_.transposed = true;
    const std::int64_t rows = linear.frozen_slice(context).kept, in = linear.in().padded;
    const auto bytes = static_cast<std::int64_t>(kernels::frozen_scratch_bytes(rows, in, context.dtype));
    merge_scratch_ = context.arena.shared(DType::i16, {(bytes + 1) / 2});
    full_precision_ = context.arena.shared(context.accumulate(), {rows, in});
}

SharedPairs make_shared_pairs(const ModelContext& context, std::span<const Linear> linears,
                              std::int64_t low_rank, double scale) {
    const auto count = static_cast<std::int64_t>(linears.size());
    const Extent& in = linears.front().in();
    const Tensor a = take_values(context, count * low_rank, in),
                 d_a = take_gradients(context, count * low_rank, in);
    const bool merged = merging_pays_in(context, linears);
    SharedPairs result;
    std::vector<LowRankProducts::Output> outputs;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t first = i * low_rank;
        auto pair = std::make_unique<LowRankAdapter>(context, linears[i], a.rows(first, low_rank),
                                                     d_a.rows(first, low_rank), scale, merged);
        outputs.push_back({pair->b().value, pair->b().gradient, scale});
        result.pairs.push_back(std::move(pair));
    }
    result.products = std::make_unique<LowRankProducts>(context, a, d_a, std::move(outputs));
    return result;
}

void LowRankAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    products_.forward({&linear, 1}, x, {&y, 1});
}

void LowRankAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    products_.backward({&linear, 1}, x, {&d_y, 1}, d_x, write);
}

Cost LowRankAdapter::cost(const Linear& linear) const {
    const double r = static_cast<double>(low_rank()), m = static_cast<double>(linear.out().size),
                 n = static_cast<double>(linear.in().size), factors = r * (m + n);
    // Backward has x A' and dY B (2 * factors together) and both gradients (2 more), merged or not. Unmerged,
    // y and d_x need one more product with B and A each, and forward computes x A' itself.
    if (merged()) return {.forward = 2 * m * n, .backward = 2 * m * n + 4 * factors, .merge = 2 * m * n * r};
    return {.forward = 2 * m * n + 2 * factors, .backward = 2 * m * n + 4 * factors + 2 * r * n};
}

std::optional<kernels::EffectiveWeight> LowRankAdapter::effective_weight() {
    return kernels::EffectiveWeight{{a_.value, b_.value, scale_}};
}

void LowRankAdapter::merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) {
    kernels::merge(base_rows, effective_weight()->from_row(row0), out, merge_scratch_);
}

void LowRankAdapter::subtract_from_base(Linear& linear) {
    const FrozenBase& base = linear.base();
    const std::int64_t count = base.slice.local;
    if (count == 0) return;
    const Tensor value = full_precision_.rows(0, count);
    kernels::load_frozen(base.local_rows(), value);
    kernels::form_in_order(value, {{a_.value, b_.value, -scale_, base.slice.begin}});
    kernels::store_frozen(value, base.local_rows());
}

}  // namespace switchyard

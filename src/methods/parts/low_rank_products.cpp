// s multiplies products, never stored factors.
#include "methods/parts/low_rank_products.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

LowRankProducts::LowRankProducts(const ModelContext& context, Tensor a, Tensor d_a,
                                 std::vector<Output> outputs)
    : a_(a),
      d_a_(d_a),
      outputs_(std::move(outputs)),
      z_(context.arena.shared(context.dtype, {a.dim(0), context.tokens()})) {}

template <class Work>
void LowRankProducts::each_pair(const Work& work) const {
    std::int64_t first_slot = 0;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
        const std::int64_t slots = outputs_[i].b.dim(0);
        work(outputs_[i], z_.rows(first_slot, slots), i);
        first_slot += slots;
    }
}

void LowRankProducts::inputs_through_a(Tensor x) const {
    matmul({.a = a_, .b = x, .c = z_, .op_b = Op::transpose});
}

void LowRankProducts::forward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> y) {
    for (std::size_t i = 0; i < linears.size() && base_ != 0; ++i)
        matmul({.a = x, .b = linears[i].weight(), .c = y[i], .op_b = Op::transpose, .alpha = base_});
    if (linears.front().adapter()->merged()) return;
    inputs_through_a(x);
    each_pair([&](const Output& output, Tensor z, std::size_t i) {
        matmul({.a = z,
                .b = output.b,
                .c = y[i],
                .op_a = Op::transpose,
                .alpha = output.scale,
                .accumulate = base_ != 0});
    });
}

void LowRankProducts::backward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> d_y,
                               Tensor d_x, Write write) {
    // Neighbouring products share their large operand, d_y or x, while it is still in a cache.
    each_pair([&](const Output& output, Tensor z, std::size_t i) {
        const bool accumulate = write == Write::accumulate || i > 0;
        if (base_ != 0)
            matmul(
                {.a = d_y[i], .b = linears[i].weight(), .c = d_x, .alpha = base_, .accumulate = accumulate});
        if (!output.d_w.empty())
            return matmul({.a = d_y[i], .b = x, .c = output.d_w, .op_a = Op::transpose, .accumulate = true});
        matmul({.a = output.b, .b = d_y[i], .c = z, .op_b = Op::transpose, .alpha = output.scale});
    });
    if (!outputs_.front().d_w.empty()) return;
    if (!linears.front().adapter()->merged())
        matmul({.a = z_,
                .b = a_,
                .c = d_x,
                .op_a = Op::transpose,
                .accumulate = base_ != 0 || write == Write::accumulate});
    matmul({.a = z_, .b = x, .c = d_a_, .accumulate = true});
    inputs_through_a(x);
    each_pair([&](const Output& output, Tensor z, std::size_t i) {
        matmul({.a = z, .b = d_y[i], .c = output.d_b, .alpha = output.scale, .accumulate = true});
    });
}

LongRowProducts::LongRowProducts(const ModelContext& context, const Pair& pair)
    : pair_(pair), z_(context.arena.shared(context.dtype, {context.tokens(), pair.a.dim(1)})) {}

void LongRowProducts::forward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> y) {
    const Linear& linear = linears.front();
    matmul({.a = x, .b = linear.weight(), .c = y[0], .op_b = Op::transpose});
    if (linear.adapter()->merged()) return;
    matmul({.a = x, .b = pair_.a, .c = z_});
    matmul(
        {.a = z_, .b = pair_.b, .c = y[0], .op_b = Op::transpose, .alpha = pair_.scale, .accumulate = true});
}

void LongRowProducts::backward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> d_y,
                               Tensor d_x, Write write) {
    const Linear& linear = linears.front();
    const Tensor d = d_y[0];
    matmul({.a = d, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    if (!pair_.d_w.empty())
        return matmul({.a = d, .b = x, .c = pair_.d_w, .op_a = Op::transpose, .accumulate = true});
    matmul({.a = d, .b = pair_.b, .c = z_, .alpha = pair_.scale});
    if (!linear.adapter()->merged())
        matmul({.a = z_, .b = pair_.a, .c = d_x, .op_b = Op::transpose, .accumulate = true});
    matmul({.a = x, .b = z_, .c = pair_.d_a, .op_a = Op::transpose, .accumulate = true});
    matmul({.a = x, .b = pair_.a, .c = z_});
    matmul(
        {.a = d, .b = z_, .c = pair_.d_b, .op_a = Op::transpose, .alpha = pair_.scale, .accumulate = true});
}

}  // namespace switchyard

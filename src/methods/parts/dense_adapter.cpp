// The products of a dense linear, with the weight as it is stored.
#include "methods/parts/dense_adapter.hpp"

#include <utility>

#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

DenseAdapter::DenseAdapter(const ModelContext& context, const Linear& linear, bool transposed) {
    weight_.shard = linear.shard();
    weight_.role = ParameterRole::weight;
    weight_.transposed = transposed;
    Shape shape{linear.out().padded, linear.in().padded};
    if (transposed) {
        Shard& s = weight_.shard;
        s.global = {s.global[1], s.global[0]};
        std::swap(s.row0, s.col0);
        std::swap(s.rows, s.cols);
        shape = {shape[1], shape[0]};
    }
    weight_.value = context.arena.take(MemoryClass::trainable, context.dtype, shape);
    weight_.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), shape);
}

void DenseAdapter::initialise(const ModelContext& context, const Linear& linear) const {
    const Extent &out = linear.out(), &in = linear.in();
    const auto fill = [&](Tensor to) {
        kernels::fill_normal(to, {in.size, out.begin, in.begin, out.count, in.count},
                             stream_key(context.config.run.seed, weight_.shard.name),
                             context.config.model.init_std);
    };
    if (!weight_.transposed) return fill(weight_.value);
    // There is no gradient yet: its memory serves.
    const Tensor drawn = weight_.gradient.view(context.dtype, {out.padded, in.padded});
    fill(drawn);
    kernels::transpose(drawn, weight_.value);
    kernels::zero(weight_.gradient);
}

void DenseAdapter::forward(const Linear&, Tensor x, Tensor y) {
    matmul({.a = x,
            .b = weight_.value,
            .c = y,
            .op_b = weight_.transposed ? Op::none : Op::transpose});
}

void DenseAdapter::backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    matmul({.a = d_y,
            .b = weight_.value,
            .c = d_x,
            .op_b = weight_.transposed ? Op::transpose : Op::none,
            .accumulate = write == Write::accumulate});
    const Tensor rows = weight_.transposed ? x : d_y, columns = weight_.transposed ? d_y : x;
    matmul({.a = rows, .b = columns, .c = weight_.gradient, .op_a = Op::transpose, .accumulate = true});
}

Cost DenseAdapter::cost(const Linear& linear) const {
    const double mn = static_cast<double>(linear.out().size) * static_cast<double>(linear.in().size);
    return {.forward = 2 * mn, .backward = 4 * mn, .step = step_cost_};
}

}  // namespace switchyard

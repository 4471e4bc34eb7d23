// Allocation, initial values and the dense products of a linear.
#include "model/linear.hpp"

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/random.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

void Adapter::merge(kernels::FrozenWeight, std::int64_t, Tensor) {
    internal_check(false, "merge() of an adapter that does not merge");
}

Shard Linear::shard() const {
    return {name_ + ".weight", {out_.size, in_.size}, out_.begin, in_.begin, out_.count, in_.count, 0};
}

RowSlice Linear::frozen_slice(const ModelContext& context) const {
    const bool sharded = context.config.parallel.shard_frozen;
    return row_slice(out_, sharded ? context.topology.dp_size() : 1,
                     sharded ? context.topology.dp_rank() : 0);
}

Shard Linear::base_shard(const ModelContext& context) const {
    Shard part = shard();
    part.row0 += base_.slice.begin;
    part.rows = base_.slice.valid;
    const bool whole = base_.slice.kept == out_.padded;
    part.replica = whole ? context.topology.dp_rank() : 0;
    part.replicas = whole ? context.topology.dp_size() : 1;
    return part;
}

void Linear::allocate(const ModelContext& context, std::unique_ptr<Adapter> adapter) {
    adapter_ = std::move(adapter);
    Arena& arena = context.arena;
    if (adapter_ && adapter_->owns_weight()) return;
    if (!frozen()) {
        dense_.shard = shard();
        dense_.role = ParameterRole::weight;
        dense_.value = arena.take(MemoryClass::trainable, context.dtype, {out_.padded, in_.padded});
        dense_.gradient = arena.take(MemoryClass::gradients, context.accumulate(), {out_.padded, in_.padded});
        weight_ = dense_.value;
        return;
    }
    base_.slice = frozen_slice(context);
    const Shape kept{base_.slice.kept, in_.padded};
    base_.words.hi = arena.take(MemoryClass::frozen, context.dtype, kept);
    if (context.dtype == DType::bf16) base_.words.lo = arena.take(MemoryClass::frozen, DType::i16, kept);
    if (base_.slice.kept == out_.padded) weight_ = base_.words.hi;
    arena.shared(context.accumulate(), kept);  // the work space of initialise()
}

void Linear::initialise(const ModelContext& context) {
    if (adapter_ && adapter_->owns_weight()) return;
    const std::uint64_t key = stream_key(context.config.run.seed, name_ + ".weight");
    const double std = context.config.model.init_std;
    const auto region = [&](std::int64_t row0, std::int64_t rows) {
        return kernels::Region{in_.size, out_.begin + row0, in_.begin, rows, in_.count};
    };
    if (!frozen()) return kernels::fill_normal(dense_.value, region(0, out_.count), key, std);
    const Tensor words = base_.words.hi;
    const Tensor full = context.arena.shared(context.accumulate(), words.shape());
    kernels::fill_normal(full, region(base_.slice.begin, base_.slice.valid), key, std);
    kernels::store_frozen(full, base_.words);
}

void Linear::visit_base(StateIo& io, const ModelContext& context) {
    const kernels::FrozenWeight words = base_.words;
    const Tensor full = context.arena.shared(context.accumulate(), words.hi.shape());
    const Shard part = base_shard(context);
    if (io.loading())  // the padding, which the file does not hold
        for (const Tensor& word : {words.hi, words.lo})
            if (!word.empty()) kernels::zero(word);
    io.formed(
        "/model/" + part.name, part, full.dtype(),
        {.room = [full](std::int64_t count) { return full.rows(0, count); },
         .form = [words](std::int64_t first,
                         Tensor rows) { kernels::load_frozen(words.rows(first, rows.dim(0)), rows); },
         .store = [words](std::int64_t first,
                          Tensor rows) { kernels::store_frozen(rows, words.rows(first, rows.dim(0))); }});
}

Cost Linear::cost() const {
    if (adapter_) return adapter_->cost(*this);
    const double mn = static_cast<double>(out_.size) * static_cast<double>(in_.size);
    return {.forward = 2 * mn, .backward = 4 * mn};
}

void Linear::forward(Tensor x, Tensor y) const {
    if (!adapter_) return matmul({.a = x, .b = weight_, .c = y, .op_b = Op::transpose});
    adapter_->forward(*this, x, y);
}

void Linear::backward(Tensor x, Tensor d_y, Tensor d_x, Write write) {
    if (adapter_) return adapter_->backward(*this, x, d_y, d_x, write);
    matmul({.a = d_y, .b = weight_, .c = d_x, .accumulate = write == Write::accumulate});
    matmul({.a = d_y, .b = x, .c = dense_.gradient, .op_a = Op::transpose, .accumulate = true});
}

}  // namespace switchyard

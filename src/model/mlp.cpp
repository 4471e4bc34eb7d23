// SwiGLU feed-forward: down(silu(gate(h)) * up(h)). The feed-forward dimension is cut over tp with local
// padding.
#include <algorithm>

#include "kernels/attention.hpp"
#include "kernels/norm.hpp"
#include "kernels/swiglu.hpp"
#include "model/half_block.hpp"

namespace switchyard {
namespace {

Extent ffn_extent(const ModelContext& context) {
    return padded_block(context.config.model.ffn_size, context.tp_size(), context.tp_rank());
}

}  // namespace

Mlp::Mlp(const ModelContext& context, const std::string& layer)
    : topology_(context.topology),
      traffic_(context.traffic),
      gate_and_up_(
          Split::column, whole(context.config.model.hidden_size),
          {{layer + ".mlp.gate_proj", ffn_extent(context)}, {layer + ".mlp.up_proj", ffn_extent(context)}}),
      down_(Split::row, ffn_extent(context),
            {{layer + ".mlp.down_proj", whole(context.config.model.hidden_size)}}) {}

MlpSaved Mlp::allocate_saved(const ModelContext& context) const {
    const Shape shape{context.tokens(), gate_and_up_[0].out().padded};
    return {context.arena.take(MemoryClass::activations, context.dtype, shape),
            context.arena.take(MemoryClass::activations, context.dtype, shape)};
}

void Mlp::gate_and_up(Tensor h, const MlpSaved& saved) const {
    gate_and_up_.forward(h, {saved.gate, saved.up});
}

Pending Mlp::forward(Tensor h, const MlpSaved& saved, const Scratch& scratch, Tensor y) const {
    gate_and_up(h, saved);
    kernels::swiglu_forward(saved.gate, saved.up, scratch.a);
    down_.forward(scratch.a, {y});
    return start_all_reduce(topology_.tp, y, scratch.reduce, traffic_, TrafficGroup::activations);
}

Pending Mlp::backward(Tensor h, const MlpSaved& saved, const Scratch& scratch, Tensor d_y) {
    kernels::swiglu_forward(saved.gate, saved.up, scratch.a);
    down_.backward(scratch.a, {d_y}, scratch.d_a);
    kernels::swiglu_backward(scratch.d_a, saved.gate, saved.up, saved.gate, saved.up, {});
    gate_and_up_.backward(h, {saved.gate, saved.up}, scratch.d_h);
    return start_all_reduce(topology_.tp, scratch.d_h, scratch.reduce, traffic_, TrafficGroup::activations);
}

Scratch allocate_scratch(const ModelContext& context) {
    const ModelConfig& m = context.config.model;
    const std::int64_t n = context.tokens(), head_size = m.hidden_size / m.num_heads;
    const auto take = [&](std::int64_t width) {
        return context.arena.take(MemoryClass::workspace, context.dtype, {n, width});
    };
    const std::int64_t q_width = m.hidden_size / context.tp_size();
    const std::int64_t kv_width = m.num_kv_heads * head_size / context.tp_size();
    const std::int64_t ffn = ffn_extent(context).padded;
    Scratch s;
    s.d_h = take(m.hidden_size);
    s.d_q = take(q_width);
    s.d_k = take(kv_width);
    s.d_v = take(kv_width);
    s.d_o = take(q_width);
    s.a = take(ffn);
    s.d_a = take(ffn);
    if (context.tp_size() > 1)
        s.reduce = context.arena.take(MemoryClass::workspace, context.dtype,
                                      {n * m.hidden_size + 64 * context.tp_size()});
    s.rope_table =
        context.arena.take(MemoryClass::workspace, context.accumulate(), {context.seq_len, 2, head_size / 2});
    if (context.config.data.mask_documents)
        s.first_key =
            context.arena.take(MemoryClass::workspace, DType::i32, {context.micro_batch, context.seq_len});
    const auto heads = [&](std::int64_t width) {
        return Shape{context.micro_batch, context.seq_len, width / head_size, head_size};
    };
    const std::size_t bytes =
        std::max(kernels::attention_scratch_bytes(heads(q_width), heads(kv_width), context.dtype),
                 kernels::rms_norm_scratch_bytes(n, m.hidden_size, context.dtype));
    s.kernels = context.arena.shared(DType::i16, {static_cast<std::int64_t>((bytes + 1) / 2)});
    return s;
}

}  // namespace switchyard

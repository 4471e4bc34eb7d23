// Causal grouped-query self-attention with RoPE. Whole heads are distributed over tp.
#include "kernels/attention.hpp"

#include "kernels/rope.hpp"
#include "model/half_block.hpp"

namespace switchyard {
namespace {

Extent heads_extent(const ModelContext& context, std::int64_t heads) {
    const ModelConfig& m = context.config.model;
    return even_block(heads * (m.hidden_size / m.num_heads), context.tp_size(), context.tp_rank());
}

}  // namespace

Attention::Attention(const ModelContext& context, const std::string& layer)
    : topology_(context.topology),
      traffic_(context.traffic),
      micro_batch_(context.micro_batch),
      seq_len_(context.seq_len),
      head_size_(context.config.model.hidden_size / context.config.model.num_heads),
      qkv_(Split::column, whole(context.config.model.hidden_size),
           {{layer + ".self_attn.q_proj", heads_extent(context, context.config.model.num_heads)},
            {layer + ".self_attn.k_proj", heads_extent(context, context.config.model.num_kv_heads)},
            {layer + ".self_attn.v_proj", heads_extent(context, context.config.model.num_kv_heads)}}),
      o_(Split::row, heads_extent(context, context.config.model.num_heads),
         {{layer + ".self_attn.o_proj", whole(context.config.model.hidden_size)}}) {}

AttentionSaved Attention::allocate_saved(const ModelContext& context) const {
    const std::int64_t n = context.tokens();
    const auto take = [&](std::int64_t width) {
        return context.arena.take(MemoryClass::activations, context.dtype, {n, width});
    };
    AttentionSaved saved;
    const std::int64_t width = qkv_[0].out().padded;
    saved.q = take(width);
    saved.k = take(qkv_[1].out().padded);
    saved.v = take(qkv_[2].out().padded);
    saved.o = take(width);
    saved.lse = context.arena.take(MemoryClass::activations, context.accumulate(),
                                   {micro_batch_, width / head_size_, seq_len_});
    return saved;
}

Tensor Attention::heads(Tensor x) const {
    return x.reshape({micro_batch_, seq_len_, x.dim(1) / head_size_, head_size_});
}

Pending Attention::forward(Tensor h, const AttentionSaved& saved, const Scratch& scratch, Tensor y) const {
    qkv_.forward(h, {saved.q, saved.k, saved.v});
    kernels::rope(heads(saved.q), scratch.rope_table, kernels::Rotation::forward);
    kernels::rope(heads(saved.k), scratch.rope_table, kernels::Rotation::forward);
    kernels::attention_forward(heads(saved.q), heads(saved.k), heads(saved.v), scratch.first_key,
                               heads(saved.o), saved.lse, scratch.kernels);
    o_.forward(saved.o, {y});
    return start_all_reduce(topology_.tp, y, scratch.reduce, traffic_, TrafficGroup::activations);
}

Pending Attention::backward(Tensor h, const AttentionSaved& saved, const Scratch& scratch, Tensor d_y) {
    o_.backward(saved.o, {d_y}, scratch.d_o);
    kernels::attention_backward({.d_o = heads(scratch.d_o),
                                 .q = heads(saved.q),
                                 .k = heads(saved.k),
                                 .v = heads(saved.v),
                                 .o = heads(saved.o),
                                 .lse = saved.lse,
                                 .first_key = scratch.first_key,
                                 .d_q = heads(scratch.d_q),
                                 .d_k = heads(scratch.d_k),
                                 .d_v = heads(scratch.d_v),
                                 .scratch = scratch.kernels});
    kernels::rope(heads(scratch.d_q), scratch.rope_table, kernels::Rotation::backward);
    kernels::rope(heads(scratch.d_k), scratch.rope_table, kernels::Rotation::backward);
    qkv_.backward(h, {scratch.d_q, scratch.d_k, scratch.d_v}, scratch.d_h);
    return start_all_reduce(topology_.tp, scratch.d_h, scratch.reduce, traffic_, TrafficGroup::activations);
}

}  // namespace switchyard

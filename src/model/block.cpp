// A pre-norm LLaMA block.
#include "model/block.hpp"

#include "kernels/norm.hpp"

namespace switchyard {

Parameter make_norm(const ModelContext& context, const std::string& name, std::int64_t size, bool trained) {
    Parameter p;
    p.shard = {name + ".weight", {size}, 0, 0, size, 1, context.tp_rank()};
    p.value =
        context.arena.take(trained ? MemoryClass::trainable : MemoryClass::frozen, context.dtype, {size});
    if (trained) p.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), {size});
    p.tp_gradient = TpGradient::same;
    p.role = ParameterRole::norm;
    return p;
}

Block::Block(const ModelContext& context, int layer)
    : eps_(context.config.model.norm_eps),
      attention_(context, "model.layers." + std::to_string(layer)),
      mlp_(context, "model.layers." + std::to_string(layer)) {
    attention_norm_.shard.name = "model.layers." + std::to_string(layer) + ".input_layernorm";
    mlp_norm_.shard.name = "model.layers." + std::to_string(layer) + ".post_attention_layernorm";
    // When backward begins, the last block's activations are still valid.
    if (!context.config.model.recompute || layer + 1 == context.config.model.num_layers) return;
    for (LinearGroup* group : attention_.groups()) group->set_recomputed();
    for (LinearGroup* group : mlp_.recomputed_groups()) group->set_recomputed();
}

void Block::allocate_norms(const ModelContext& context, bool trained) {
    const std::int64_t size = context.config.model.hidden_size;
    attention_norm_ = make_norm(context, attention_norm_.shard.name, size, trained);
    mlp_norm_ = make_norm(context, mlp_norm_.shard.name, size, trained);
}

BlockSaved Block::allocate_saved(const ModelContext& context, Tensor x) const {
    const Shape wide{context.tokens(), context.config.model.hidden_size}, narrow{context.tokens()};
    const auto take = [&](DType dtype, Shape shape) {
        return context.arena.take(MemoryClass::activations, dtype, shape);
    };
    BlockSaved saved;
    saved.x = x;
    saved.x_mid = take(context.dtype, wide);
    saved.h_attention = take(context.dtype, wide);
    saved.h_mlp = take(context.dtype, wide);
    saved.rstd_attention = take(context.accumulate(), narrow);
    saved.rstd_mlp = take(context.accumulate(), narrow);
    saved.attention = attention_.allocate_saved(context);
    saved.mlp = mlp_.allocate_saved(context);
    return saved;
}

void Block::forward(Tensor x_in, Tensor y_in, const BlockSaved& saved, const Scratch& scratch,
                    Tensor y) const {
    if (y_in.empty())
        kernels::rms_norm_forward(saved.x, attention_norm_.value, saved.h_attention, saved.rstd_attention,
                                  eps_);
    else
        kernels::add_rms_norm_forward(x_in, y_in, attention_norm_.value, saved.x, saved.h_attention,
                                      saved.rstd_attention, eps_);
    finish_attention(saved, scratch, y);
    mlp_.forward(saved.h_mlp, saved.mlp, scratch, y).wait();
    mlp_.output_complete(y);
}

void Block::finish_attention(const BlockSaved& saved, const Scratch& scratch, Tensor y) const {
    attention_.forward(saved.h_attention, saved.attention, scratch, y).wait();
    attention_.output_complete(y);
    kernels::add_rms_norm_forward(saved.x, y, mlp_norm_.value, saved.x_mid, saved.h_mlp, saved.rstd_mlp,
                                  eps_);
}

void Block::recompute(const BlockSaved& saved, const Scratch& scratch, Tensor y) const {
    kernels::rms_norm_forward(saved.x, attention_norm_.value, saved.h_attention, saved.rstd_attention, eps_);
    finish_attention(saved, scratch, y);
    mlp_.gate_and_up(saved.h_mlp, saved.mlp);
}

void Block::backward(const BlockSaved& saved, const Scratch& scratch, Tensor d_x) {
    mlp_.backward(saved.h_mlp, saved.mlp, scratch, d_x).wait();
    kernels::rms_norm_backward(scratch.d_h, saved.x_mid, mlp_norm_.value, saved.rstd_mlp, d_x,
                               mlp_norm_.gradient, scratch.kernels);
    attention_.backward(saved.h_attention, saved.attention, scratch, d_x).wait();
    kernels::rms_norm_backward(scratch.d_h, saved.x, attention_norm_.value, saved.rstd_attention, d_x,
                               attention_norm_.gradient, scratch.kernels);
}

std::vector<LinearGroup*> Block::groups() {
    std::vector<LinearGroup*> all = attention_.groups();
    for (LinearGroup* group : mlp_.groups()) all.push_back(group);
    return all;
}

}  // namespace switchyard

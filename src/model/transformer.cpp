// The forward and backward pass over the blocks, and what forward keeps for backward.
#include "model/transformer.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/norm.hpp"
#include "kernels/rope.hpp"
#include "kernels/subnormals.hpp"

namespace switchyard {

Transformer::Transformer(const ModelContext& context) : context_(context), vocab_(context) {
    blocks_.reserve(context.config.model.num_layers);
    for (int layer = 0; layer < context.config.model.num_layers; ++layer)
        blocks_.emplace_back(context, layer);
}

std::vector<Linear*> Transformer::linears() {
    std::vector<Linear*> all;
    for (Block& block : blocks_)
        for (Linear* linear : linears_of(block.groups())) all.push_back(linear);
    return all;
}

void Transformer::allocate(const ModelContext& context,
                           const std::function<GroupAdapters(LinearGroup&)>& attach) {
    for (Block& block : blocks_)
        for (LinearGroup* group : block.groups()) group->allocate(context, attach(*group));
    for (Block& block : blocks_) block.allocate_norms(context);
    final_norm_ = make_norm(context, "model.norm", context.config.model.hidden_size);
    scratch_ = allocate_scratch(context);

    const std::int64_t n = context.tokens(), hidden = context.config.model.hidden_size;
    const auto take = [&](DType dtype, Shape shape) {
        return context.arena.take(MemoryClass::activations, dtype, shape);
    };
    for (const Block& block : blocks_) {
        const Tensor x = take(context.dtype, {n, hidden});
        if (context.config.model.recompute && !saved_.empty()) {
            saved_.push_back(saved_.front());
            saved_.back().x = x;
        } else {
            saved_.push_back(block.allocate_saved(context, x));
        }
    }
    x_final_ = take(context.dtype, {n, hidden});
    h_final_ = take(context.dtype, {n, hidden});
    rstd_final_ = take(context.accumulate(), {n});
    loss_ = take(DType::f64, {1});
    y_ = take(context.dtype, {n, hidden});
    d_x_ = take(context.dtype, {n, hidden});
    batch_.tokens = take(DType::i32, {n});
    batch_.targets = take(DType::i32, {n});
    batch_.first_key = scratch_.first_key;

    std::vector<std::vector<Linear*>> linears;
    for (Block& block : blocks_) linears.push_back(linears_of(block.groups()));
    stage_ = std::make_unique<WeightStage>(context, std::move(linears));
}

Shadow& Transformer::add_shadow(const ModelContext& context) {
    shadow_ = std::make_unique<Shadow>(context, vocab_, blocks_, scratch_);
    return *shadow_;
}

void Transformer::initialise(const ModelContext& context) {
    vocab_.initialise(context);
    for (Linear* linear : linears()) linear->initialise(context);
    for (Block& block : blocks_)
        for (Parameter* norm : block.norms()) kernels::fill(norm->value, 1.0);
    kernels::fill(final_norm_.value, 1.0);
    prepare(context);
}

void Transformer::prepare(const ModelContext& context) {
    kernels::rope_table(scratch_.rope_table, context.config.model.rope_theta);
}

std::vector<Parameter*> Transformer::parameters() {
    std::vector<Parameter*> all = vocab_.parameters();
    for (Block& block : blocks_) {
        for (Parameter* norm : block.norms()) all.push_back(norm);
        for (Linear* linear : linears_of(block.groups())) {
            if (!linear->adapter()) {
                all.push_back(&linear->dense());
            } else {
                for (Parameter* p : linear->adapter()->parameters()) all.push_back(p);
            }
        }
    }
    all.push_back(&final_norm_);
    return all;
}

void Transformer::run_blocks(Shadow* shadow) {
    if (shadow) shadow->begin(batch_.tokens);
    vocab_.embed(batch_.tokens, saved_.front().x, scratch_.reduce).wait();
    const int num_blocks = static_cast<int>(blocks_.size());
    for (int b = 0; b < num_blocks; ++b) {
        stage_->acquire(b);
        stage_->prefetch(b + 1);
        if (shadow) shadow->forward(b);
        const Tensor x_in = b == 0 ? Tensor{} : saved_[b - 1].x_mid;
        blocks_[b].forward(x_in, b == 0 ? Tensor{} : y_, saved_[b], scratch_, y_);
    }
    kernels::add_rms_norm_forward(saved_.back().x_mid, y_, final_norm_.value, x_final_, h_final_, rstd_final_,
                                  context_.config.model.norm_eps);
}

void Transformer::forward(double scale) {
    const kernels::FlushSubnormals flush;
    run_blocks(shadow_.get());
    vocab_.loss(h_final_, batch_.targets, scale, loss_, scratch_.d_h);
}

void Transformer::backward() {
    const kernels::FlushSubnormals flush;
    start_all_reduce(context_.topology.tp, scratch_.d_h, scratch_.reduce, context_.traffic,
                     TrafficGroup::activations)
        .wait();
    kernels::zero(d_x_);
    kernels::rms_norm_backward(scratch_.d_h, x_final_, final_norm_.value, rstd_final_, d_x_,
                               final_norm_.gradient, scratch_.kernels);
    for (int b = static_cast<int>(blocks_.size()) - 1; b >= 0; --b) {
        stage_->acquire(b);
        stage_->prefetch(b - 1);
        const bool overwritten = context_.config.model.recompute && b + 1 < static_cast<int>(blocks_.size());
        if (overwritten && shadow_) shadow_->recompute(b);
        if (overwritten) blocks_[b].recompute(saved_[b], scratch_, y_);
        blocks_[b].backward(saved_[b], scratch_, d_x_);
    }
    vocab_.embed_backward(batch_.tokens, d_x_);
}

void Transformer::evaluate() {
    const kernels::FlushSubnormals flush;
    run_blocks(nullptr);
    vocab_.loss(h_final_, batch_.targets, 0, loss_, {});
}

void Transformer::next_token_logits(std::int64_t position, Tensor logits) const {
    vocab_.logits(h_final_.rows(position, 1), logits);
}

Traffic Transformer::plan_traffic(std::int64_t micro_batches) {
    const int tp = context_.tp_size();
    const auto count = static_cast<double>(micro_batches);
    const auto layers = static_cast<double>(blocks_.size());
    const double recomputed = context_.config.model.recompute ? layers - 1 : 0;
    Traffic traffic;
    const double sums = 2 + 4 * layers + recomputed + (shadow_ ? shadow_->sums() : 0);
    traffic.add(TrafficGroup::activations,
                count * sums * all_reduce_bytes(static_cast<double>(y_.bytes()), tp));
    traffic.add(TrafficGroup::loss, count * vocab_.loss_bytes());
    traffic.add(TrafficGroup::frozen, stage_->bytes_per_step(micro_batches));
    return traffic;
}

}  // namespace switchyard

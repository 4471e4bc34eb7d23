// The chunk size keeps the logits of a chunk near kernels::logits_chunk_bytes(). They are stored as
// (vocabulary, tokens): the weight's gradient then needs no transpose, and softmax runs along tokens.
#include "model/vocab.hpp"

#include <algorithm>

#include "core/rng.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/random.hpp"

namespace switchyard {

using kernels::matmul;
using kernels::Op;

namespace {

Parameter make_table(const ModelContext& context, const std::string& name, ParameterRole role,
                     const Extent& extent) {
    const std::int64_t hidden = context.config.model.hidden_size;
    Parameter p;
    p.shard = {name, {extent.size, hidden}, extent.begin, 0, extent.count, hidden, 0};
    p.value = context.arena.take(MemoryClass::trainable, context.dtype, {extent.padded, hidden});
    p.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), {extent.padded, hidden});
    p.role = role;
    return p;
}

std::int64_t chunk_tokens(const ModelContext& context, std::int64_t padded_vocab) {
    const std::int64_t row_bytes = padded_vocab * static_cast<std::int64_t>(size_of(context.dtype));
    const std::int64_t fitting =
        static_cast<std::int64_t>(kernels::logits_chunk_bytes()) / row_bytes / 64 * 64;
    return std::min(context.tokens(), std::max<std::int64_t>(64, fitting));
}

}  // namespace

Vocab::Vocab(const ModelContext& context)
    : topology_(context.topology),
      traffic_(context.traffic),
      tied_(context.config.model.tie_embeddings),
      extent_(padded_block(context.config.model.vocab_size, context.tp_size(), context.tp_rank())),
      tokens_(context.tokens()),
      chunk_(chunk_tokens(context, extent_.padded)) {
    embedding_ = make_table(context, "model.embed_tokens.weight", ParameterRole::embedding, extent_);
    if (!tied_) head_ = make_table(context, "lm_head.weight", ParameterRole::head, extent_);
    Arena& arena = context.arena;
    logits_ = arena.take(MemoryClass::activations, context.dtype, {extent_.padded, chunk_});
    stats_ = arena.take(MemoryClass::activations, context.accumulate(), {3, chunk_});
    all_stats_ = arena.take(MemoryClass::activations, context.accumulate(), {context.tp_size(), 3, chunk_});
    lse_ = arena.take(MemoryClass::activations, context.accumulate(), {chunk_});
}

void Vocab::initialise(const ModelContext& context) {
    const std::int64_t hidden = context.config.model.hidden_size;
    for (Parameter* p : parameters())
        kernels::fill_normal(p->value, {hidden, extent_.begin, 0, extent_.count, hidden},
                             stream_key(context.config.run.seed, p->shard.name),
                             context.config.model.init_std);
}

Pending Vocab::embed(Tensor table, Tensor tokens, Tensor x, Tensor reduce) const {
    kernels::embedding_forward(tokens, table, range(), x);
    return start_all_reduce(topology_.tp, x, reduce, traffic_, TrafficGroup::activations);
}

void Vocab::embed_backward(Tensor tokens, Tensor d_x) {
    kernels::embedding_backward(tokens, d_x, range(), embedding_.gradient);
}

void Vocab::loss(Tensor h, Tensor targets, double scale, Tensor loss, Tensor d_h) {
    const Tensor weight = head().value;
    kernels::zero(loss);
    for (std::int64_t begin = 0; begin < h.dim(0); begin += chunk_) {
        const std::int64_t n = std::min(chunk_, h.dim(0) - begin);
        const Tensor h_chunk = h.rows(begin, n), target = targets.rows(begin, n), lse = lse_.rows(0, n);
        const Tensor logits = logits_.view(logits_.dtype(), {extent_.padded, n});
        const Tensor stats = stats_.view(stats_.dtype(), {3, n});
        const Tensor all = all_stats_.view(all_stats_.dtype(), {topology_.tp_size(), 3, n});
        matmul({.a = weight, .b = h_chunk, .c = logits, .op_b = Op::transpose});
        kernels::softmax_statistics(logits, target, range(), stats);
        start_all_gather(topology_.tp, stats, all, traffic_, TrafficGroup::loss).wait();
        kernels::combine_statistics(all, target, lse, loss);
        if (d_h.empty()) continue;
        kernels::cross_entropy_backward(logits, lse, target, range(), scale);
        matmul({.a = logits, .b = weight, .c = d_h.rows(begin, n), .op_a = Op::transpose});
        matmul({.a = logits, .b = h_chunk, .c = head().gradient, .accumulate = true});
    }
}

void Vocab::logits(Tensor h, Tensor logits) const {
    matmul({.a = h, .b = tied_ ? embedding_.value : head_.value, .c = logits, .op_b = Op::transpose});
}

std::vector<Parameter*> Vocab::parameters() {
    if (tied_) return {&embedding_};
    return {&embedding_, &head_};
}

double Vocab::loss_bytes() const {
    return all_gather_bytes(static_cast<double>(tokens_ * 3 * topology_.tp_size()) * size_of(stats_.dtype()),
                            topology_.tp_size());
}

}  // namespace switchyard

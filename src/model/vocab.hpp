// Vocab: vocab-parallel embedding, head and cross-entropy. This rank holds rows [begin, begin + count) of
// both tables, padded to equal blocks. Logits exist for one chunk of tokens at a time; their backward follows
// immediately.
#pragma once

#include "kernels/embedding.hpp"
#include "model/context.hpp"
#include "model/extent.hpp"
#include "model/parameter.hpp"

namespace switchyard {

class Vocab {
  public:
    explicit Vocab(const ModelContext&);
    void initialise(const ModelContext&);

    /// x (N, C) <- embeddings of tokens (N) i32, summed over tp.
    Pending embed(Tensor tokens, Tensor x, Tensor reduce) const {
        return embed(embedding_.value, tokens, x, reduce);
    }
    /// The same with another table, of the shape of embedding().
    Pending embed(Tensor table, Tensor tokens, Tensor x, Tensor reduce) const;
    /// Embedding gradient += the gradient from d_x (N, C).
    void embed_backward(Tensor tokens, Tensor d_x);

    /// loss (1) f64 in back-end memory <- sum of the cross-entropies of h (N, C) against targets (N; -1 is
    /// ignored). If d_h is given: head gradient += its part, and d_h (N, C) <- scale * gradient of that sum,
    /// not yet summed over tp.
    void loss(Tensor h, Tensor targets, double scale, Tensor loss, Tensor d_h);

    /// logits (1, V local padded) of one row h (1, C).
    void logits(Tensor h, Tensor logits) const;

    const Extent& extent() const { return extent_; }
    const Parameter& embedding() const { return embedding_; }
    std::vector<Parameter*> parameters();
    /// Bytes that this rank sends for the loss of N tokens (the statistics of all tp ranks).
    double loss_bytes() const;

  private:
    Parameter& head() { return tied_ ? embedding_ : head_; }
    kernels::VocabRange range() const { return {extent_.begin, extent_.count}; }

    const Topology& topology_;
    Traffic& traffic_;
    bool tied_;
    Extent extent_;
    std::int64_t tokens_, chunk_;
    Parameter embedding_, head_;
    Tensor logits_, stats_, all_stats_, lse_;  // of one chunk
};

}  // namespace switchyard

// The two halves of a block, attention and MLP: a column-parallel stage, local work, a row-parallel linear.
// Each has two collectives over tp: the sum of its output and, in backward, the sum of its input's gradient.
// `Saved` is what forward keeps for backward; `Scratch` is shared by all blocks.
#pragma once

#include "model/linear_group.hpp"

namespace switchyard {

/// Shapes with N = B T tokens; widths are local to this rank.
struct AttentionSaved {
    Tensor q, k, v, o;  // (N, H D), (N, K D), (N, K D), (N, H D)
    Tensor lse;         // (B, H, T)
};
struct MlpSaved {
    Tensor gate, up;  // (N, F); hold d_gate and d_up after backward
};

/// Work space that is free between half-blocks.
struct Scratch {
    Tensor d_h;  // (N, C)
    Tensor d_q, d_k, d_v, d_o;
    Tensor a, d_a;      // (N, F)
    Tensor reduce;      // work space of the tp collectives
    Tensor rope_table;  // (T, 2, D/2)
    Tensor first_key;   // (B, T) i32, or empty
    Tensor kernels;     // scratch of the attention and norm kernels
};

class Attention {
  public:
    Attention(const ModelContext&, const std::string& layer);
    AttentionSaved allocate_saved(const ModelContext&) const;

    /// y (N, C) <- sum over tp of the half-block's output for h (N, C); complete when the Pending is.
    Pending forward(Tensor h, const AttentionSaved&, const Scratch&, Tensor y) const;
    /// To be called when forward()'s Pending has completed.
    void output_complete(Tensor y) const { o_.output_complete({y}); }
    /// scratch.d_h <- gradient of h, summed over tp, from d_y (N, C); factor and weight gradients +=.
    Pending backward(Tensor h, const AttentionSaved&, const Scratch&, Tensor d_y);

    std::vector<LinearGroup*> groups() { return {&qkv_, &o_}; }

  private:
    Tensor heads(Tensor x) const;

    const Topology& topology_;
    Traffic& traffic_;
    std::int64_t micro_batch_, seq_len_, head_size_;
    LinearGroup qkv_, o_;
};

class Mlp {
  public:
    Mlp(const ModelContext&, const std::string& layer);
    MlpSaved allocate_saved(const ModelContext&) const;

    Pending forward(Tensor h, const MlpSaved&, const Scratch&, Tensor y) const;
    void output_complete(Tensor y) const { down_.output_complete({y}); }
    /// The part of forward() that fills `saved`.
    void gate_and_up(Tensor h, const MlpSaved&) const;
    Pending backward(Tensor h, const MlpSaved&, const Scratch&, Tensor d_y);

    std::vector<LinearGroup*> groups() { return {&gate_and_up_, &down_}; }
    /// The groups of gate_and_up(); backward does not need the output of the others.
    std::vector<LinearGroup*> recomputed_groups() { return {&gate_and_up_}; }

  private:
    const Topology& topology_;
    Traffic& traffic_;
    LinearGroup gate_and_up_, down_;
};

/// Allocates what all half-blocks share; to be called after the method has attached its adapters.
Scratch allocate_scratch(const ModelContext&);

}  // namespace switchyard

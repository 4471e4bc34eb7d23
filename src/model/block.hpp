// Block: x_mid = x + attention(norm(x)); x_out = x_mid + mlp(norm(x_mid)). The second addition is fused with
// the norm that follows it (of the next block, or the final one), so a block returns (x_mid, y) instead of
// their sum.
#pragma once

#include "model/half_block.hpp"

namespace switchyard {

/// The activations that forward of one block keeps for backward. With model.recompute all blocks share one
/// set, except `x`.
struct BlockSaved {
    Tensor x;                         // (N, C) residual stream at the block's input
    Tensor x_mid;                     // (N, C)
    Tensor h_attention, h_mlp;        // (N, C) outputs of the norms
    Tensor rstd_attention, rstd_mlp;  // (N)
    AttentionSaved attention;
    MlpSaved mlp;
};

class Block {
  public:
    Block(const ModelContext&, int layer);

    /// trained: their values are trainable and have gradients; otherwise they are frozen.
    void allocate_norms(const ModelContext&, bool trained = true);
    BlockSaved allocate_saved(const ModelContext&, Tensor x) const;

    /// The input is the residual stream x_in + y_in (x_in alone if y_in is empty), which is stored in
    /// saved.x. On return the block's output is saved.x_mid + y, where y (N, C) is the MLP's output.
    void forward(Tensor x_in, Tensor y_in, const BlockSaved&, const Scratch&, Tensor y) const;
    /// Computes `saved` again from saved.x; y (N, C) is scratch.
    void recompute(const BlockSaved&, const Scratch&, Tensor y) const;
    /// d_x (N, C): gradient of the block's output on entry, of its input on return.
    void backward(const BlockSaved&, const Scratch&, Tensor d_x);

    /// The groups of linears, in the order of the forward pass.
    std::vector<LinearGroup*> groups();
    std::vector<Parameter*> norms() { return {&attention_norm_, &mlp_norm_}; }

  private:
    void finish_attention(const BlockSaved&, const Scratch&, Tensor y) const;

    double eps_;
    Parameter attention_norm_, mlp_norm_;
    Attention attention_;
    Mlp mlp_;
};

/// The weight (n) of a norm, initially ones. It is the same on all tp ranks, and so is its gradient.
Parameter make_norm(const ModelContext&, const std::string& name, std::int64_t size, bool trained = true);

}  // namespace switchyard

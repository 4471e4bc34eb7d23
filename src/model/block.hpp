// Block: x_mid = x + attention(norm(x)); x_out = x_mid + mlp(norm(x_mid)). The second addition is fused with
// the norm that follows it, the next block's or the final one, so a block hands on (x_mid, y) instead of
// their sum.
#pragma once

#include "model/half_block.hpp"

namespace switchyard {

/// What one block's forward leaves for its backward. With model.recompute all blocks but for `x` share one
/// set.
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

    void allocate_norms(const ModelContext&);
    BlockSaved allocate_saved(const ModelContext&, Tensor x) const;

    /// Input: residual stream x_in + y_in (y_in empty: x_in alone), stored to saved.x. On return the block's
    /// output is saved.x_mid + y, y (N, C) being the MLP's output.
    void forward(Tensor x_in, Tensor y_in, const BlockSaved&, const Scratch&, Tensor y) const;
    /// Fills `saved` again from saved.x; y (N, C) is scratch.
    void recompute(const BlockSaved&, const Scratch&, Tensor y) const;
    /// d_x (N, C): gradient of the block's output on entry, of its input on return.
    void backward(const BlockSaved&, const Scratch&, Tensor d_x);

    std::vector<Linear*> linears();
    std::vector<Parameter*> norms() { return {&attention_norm_, &mlp_norm_}; }

  private:
    void finish_attention(const BlockSaved&, const Scratch&, Tensor y) const;

    double eps_;
    Parameter attention_norm_, mlp_norm_;
    Attention attention_;
    Mlp mlp_;
};

/// A norm's weight (n), ones at start: the same on all tp ranks, and so is its gradient.
Parameter make_norm(const ModelContext&, const std::string& name, std::int64_t size);

}  // namespace switchyard

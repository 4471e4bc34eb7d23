// Shadow: the model as it was when take() was called, a teacher. Its blocks run on the same tokens, each just
// before that of the model, with the frozen weights that are staged for it, and hand the output of every
// linear to the adapter of the model's own (Adapter::on_shadow_output). It has copies of embedding and norms,
// which train in the model, and the activations of one block.
#pragma once

#include <vector>

#include "io/checkpoint/state_io.hpp"
#include "model/block.hpp"
#include "model/vocab.hpp"

namespace switchyard {

class Shadow {
  public:
    /// Of a model whose linears are all frozen and not merged, when it has its memory. What is given must
    /// live as long.
    Shadow(const ModelContext&, const Vocab&, std::vector<Block>&, const Scratch&);

    /// Copies what trains in the model.
    void take();
    /// Saves or loads these copies as <folder><name>. Collective.
    void visit(StateIo&, const std::string& folder);

    /// Embeds the tokens (N) of a forward pass, which then calls forward() of blocks 0, 1, ...
    void begin(Tensor tokens);
    void forward(int block);
    /// The outputs that the model's block computes again (model.recompute).
    void recompute(int block) const { blocks_[block].recompute(saved_[block], scratch_, y_); }

    std::vector<Linear*> linears();
    /// The copies, as parameters without gradients.
    std::vector<Parameter*> copies();
    /// The number of sums over tp of activations in a forward and a backward pass.
    double sums() const;

  private:
    const Vocab& model_vocab_;
    std::vector<Block>& model_blocks_;
    const Scratch& scratch_;
    int world_rank_, dp_rank_;
    bool recompute_;
    Parameter embedding_;
    std::vector<Block> blocks_;
    std::vector<BlockSaved> saved_;  // all share their memory but, with model.recompute, for x
    Tensor y_;                       // (N, C): the output that a block hands on
};

}  // namespace switchyard

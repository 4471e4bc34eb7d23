// Transformer: a LLaMA decoder with hand-written forward and backward. It is built in three stages: construct
// it (shapes), let a method choose the adapter of each linear, allocate. It handles one micro-batch at a
// time: forward(), then backward().
#pragma once

#include <functional>

#include "model/shadow.hpp"
#include "model/weight_stage.hpp"

namespace switchyard {

/// One micro-batch in back-end memory; N = B T.
struct MicroBatch {
    Tensor tokens, targets;  // (N) i32; target -1: ignored
    Tensor first_key;        // (B, T) i32, or empty
};

class Transformer {
  public:
    explicit Transformer(const ModelContext&);

    /// The linears of all blocks, in the order of the forward pass.
    std::vector<Linear*> linears();
    /// `attach` returns what a method puts beside each group of linears; then all memory is allocated.
    void allocate(const ModelContext&, const std::function<GroupAdapters(LinearGroup&)>& attach);
    /// Adds a shadow (model/shadow.hpp), which runs beside forward() and backward(), in memory of its own. To
    /// be called after allocate(), for models that train.
    Shadow& add_shadow(const ModelContext&);
    /// nullptr: there is none.
    Shadow* shadow() { return shadow_.get(); }
    /// Seeded initial values of every weight and norm. The method initialises the adapters afterwards.
    void initialise(const ModelContext&);
    /// Computes what is constant during a run (RoPE's table). initialise() does this too; loading a
    /// checkpoint needs it alone.
    void prepare(const ModelContext&);
    /// Everything that is trained, in a fixed order: embedding, head, blocks (norms, then weights or
    /// factors), final norm.
    std::vector<Parameter*> parameters();

    /// To be called when values of weights or factors have changed since the last forward().
    void weights_changed() { stage_->invalidate(); }
    /// loss() <- sum of the losses of batch() over its targets; keeps what backward() needs. `scale`: factor
    /// of the gradient, 1 / (number of targets in the whole batch of the step). The head's gradient is
    /// computed here.
    void forward(double scale);
    /// Adds the gradients for the batch of the last forward().
    void backward();
    /// loss() <- sum of the losses of batch(), without gradients.
    void evaluate();
    /// The loss of the last forward() or evaluate(): (1) f64 in back-end memory.
    Tensor loss() const { return loss_; }
    /// Like evaluate() without the loss; next_token_logits() may follow.
    void read() { run_blocks(nullptr); }
    /// logits (1, V local padded) of the token after position `position` of sequence 0; to be called after
    /// evaluate() or read().
    void next_token_logits(std::int64_t position, Tensor logits) const;

    const Extent& vocabulary() const { return vocab_.extent(); }
    const MicroBatch& batch() const { return batch_; }  // the caller fills its tensors before a pass
    /// Bytes that this rank sends in one step of `micro_batches` forward and backward passes.
    Traffic plan_traffic(std::int64_t micro_batches);

  private:
    void run_blocks(Shadow*);

    ModelContext context_;
    Vocab vocab_;
    std::vector<Block> blocks_;
    Parameter final_norm_;
    std::vector<BlockSaved> saved_;
    Scratch scratch_;
    std::unique_ptr<WeightStage> stage_;
    std::unique_ptr<Shadow> shadow_;
    MicroBatch batch_;
    Tensor x_final_, h_final_, rstd_final_, loss_;
    Tensor y_, d_x_;  // (N, C): the output that a block hands on; the gradient of the residual stream
};

}  // namespace switchyard

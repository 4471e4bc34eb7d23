// Transformer: a LLaMA decoder, hand-written forward and backward. Built in three moves: construct (shapes),
// let a method decide about each linear (set_adapter), allocate. One micro-batch at a time: forward(), then
// backward().
#pragma once

#include <functional>

#include "model/block.hpp"
#include "model/vocab.hpp"
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
    /// Adapters decided by `attach` (nullptr: dense), then everything gets its memory.
    void allocate(const ModelContext&, const std::function<std::unique_ptr<Adapter>(Linear&)>& attach);
    /// Seeded initial values of every weight and norm; adapters are initialised by their method afterwards.
    void initialise(const ModelContext&);
    /// What does not change in a run (RoPE's table); part of initialise(), needed alone before loading a
    /// checkpoint.
    void prepare(const ModelContext&);
    /// Everything trained, in a fixed order: embedding, head, blocks (norms, then weights or factors), final
    /// norm.
    std::vector<Parameter*> parameters();

    /// Values of weights or factors have changed since the last forward().
    void weights_changed() { stage_->invalidate(); }
    /// loss() <- sum of the losses of batch() over its targets; keeps what backward() needs. `scale`: factor
    /// of the gradient, one over the number of targets in the whole batch of the step. The head's gradient is
    /// formed here.
    void forward(double scale);
    /// Gradients += of what the last forward() saw.
    void backward();
    /// loss() <- sum of the losses of batch(), without gradients.
    void evaluate();
    /// (1) f64 in back-end memory: of the last forward() or evaluate().
    Tensor loss() const { return loss_; }
    /// As evaluate() without the loss, for next_token_logits().
    void read() { run_blocks(); }
    /// logits (1, V local padded) of the token after position `position` of sequence 0, after evaluate() or
    /// read().
    void next_token_logits(std::int64_t position, Tensor logits) const;

    const Extent& vocabulary() const { return vocab_.extent(); }
    const MicroBatch& batch() const { return batch_; }  // tensors to be filled by the caller before a pass
    /// Bytes that this rank sends in one step of `micro_batches` forward and backward passes.
    Traffic plan_traffic(std::int64_t micro_batches);

  private:
    void run_blocks();

    ModelContext context_;
    Vocab vocab_;
    std::vector<Block> blocks_;
    Parameter final_norm_;
    std::vector<BlockSaved> saved_;
    Scratch scratch_;
    std::unique_ptr<WeightStage> stage_;
    MicroBatch batch_;
    Tensor x_final_, h_final_, rstd_final_, loss_;
    Tensor y_, d_x_;  // (N, C): a block's handed-on output; gradient of the residual stream
};

}  // namespace switchyard

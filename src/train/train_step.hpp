// One training step. The order of its parts is part of the algorithm (design section 4, "Order of one step").
#pragma once

#include <functional>

#include "core/timer.hpp"
#include "io/tokens/token_loader.hpp"
#include "train/batch_source.hpp"
#include "train/train_state.hpp"

namespace switchyard {

struct StepResult {
    double loss = 0;       // mean over the targets of the global batch
    double grad_norm = 0;  // before clipping
    double lr = 0;         // rate of factors and dense linears (optim.lr times the schedule)
    MethodReport method;
};

/// Advances `state` by one step. Collective. The host reads results of the back end once, at the end. Throws
/// NotFinite on all ranks, naming step and first bad parameter, if loss or gradient are not finite. In that
/// case no update was made, though a method may have switched or merged as it would after one. Step t takes
/// samples t global_batch ... of the source.
StepResult train_step(TrainState& state, const BatchSource&, PhaseTimer&);
/// The same with a token file; `first_sample`: the loader's sample at step 0.
StepResult train_step(TrainState& state, const TokenLoader&, std::int64_t first_sample, PhaseTimer&);

/// Mean loss over the whole validation set, the same on every layout up to rounding. Collective. `progress`
/// is called after each micro-batch.
double validation_loss(
    const ModelContext&, Transformer&, const TokenLoader&, const std::function<void()>& progress = [] {});
inline double validation_loss(
    TrainState& s, const TokenLoader& loader, const std::function<void()>& progress = [] {}) {
    return validation_loss(s.context, s.model, loader, progress);
}

}  // namespace switchyard

// Parameter: a tensor that is trained, as this rank holds it. Values are the compute copies; the optimizer's
// masters belong to its owner (optim/owned_parameter.hpp).
#pragma once

#include "core/shard.hpp"

namespace switchyard {

/// How the gradients of the tp ranks combine. `own`: each tp rank holds another part of the tensor.
/// `partial`: all hold the same tensor and their gradients add up. `same`: all hold the same tensor and
/// compute the same gradient.
enum class TpGradient { own, partial, same };

/// What a parameter is, for counts, its learning rate and weight decay.
enum class ParameterRole { embedding, head, norm, weight, factor };

struct Parameter {
    Shard shard;
    Tensor value;     // compute or accumulate type, local shape with padding
    Tensor gradient;  // accumulate type; value's rows, but maybe of another width (a projected gradient)
    TpGradient tp_gradient = TpGradient::own;
    /// weight: of a linear, whole; factor: whatever else an adapter trains.
    ParameterRole role = ParameterRole::factor;
    bool transposed =
        false;  // the checkpoint holds the transpose (lora_B is trained slot by slot, one slot a row)

    /// Of a linear of a block: learning rate `lr`; others have `dense_lr`.
    bool of_linear() const { return role == ParameterRole::weight || role == ParameterRole::factor; }
};

}  // namespace switchyard

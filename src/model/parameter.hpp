// Parameter: the part of a trained tensor that this rank holds. Values are the compute copies; the masters
// are at the owner of each row (optim/owned_parameter.hpp).
#pragma once

#include "core/shard.hpp"

namespace switchyard {

/// How the gradients of the tp ranks combine. `own`: each tp rank holds a different part of the tensor.
/// `partial`: all hold the same tensor and their gradients are summed. `same`: all hold the same tensor and
/// compute the same gradient.
enum class TpGradient { own, partial, same };

/// What a parameter is, which decides its learning rate, weight decay and place in parameter counts.
enum class ParameterRole { embedding, head, norm, weight, factor };

struct Parameter {
    Shard shard;
    Tensor value;     // compute or accumulate type, local shape with padding
    Tensor gradient;  // accumulate type; as many rows as value, but possibly another width (a projected
                      // gradient)
    TpGradient tp_gradient = TpGradient::own;
    /// weight: the whole weight of a linear; factor: anything else that an adapter trains.
    ParameterRole role = ParameterRole::factor;
    bool transposed =
        false;  // the checkpoint holds the transpose (lora_B is stored slot by slot, one slot per row)
    /// False: the value is computed anew in each step and is no part of the model (a direction). Checkpoints
    /// hold its moments alone.
    bool stored = true;
    /// The name under which checkpoints hold the moments; empty: that of the shard.
    std::string moments_name{};

    const std::string& name_of_moments() const { return moments_name.empty() ? shard.name : moments_name; }

    /// True for parameters of a block's linear, which have learning rate `lr`; others have `dense_lr`.
    bool of_linear() const { return role == ParameterRole::weight || role == ParameterRole::factor; }
};

}  // namespace switchyard

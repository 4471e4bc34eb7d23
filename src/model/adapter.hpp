// Adapter: the local arithmetic of a linear whose map is changed by a method. It never communicates: what
// must be summed over tp joins the half-block's collective (activations) or the gradient reduction of the
// step (factors).
#pragma once

#include <optional>
#include <vector>

#include "kernels/frozen_weight.hpp"
#include "kernels/matmul.hpp"
#include "model/parameter.hpp"

namespace switchyard {

class Linear;

using kernels::Write;

/// The number of operations of a linear's products, over all ranks and without padding; a multiply-add counts
/// as two.
struct Cost {
    double forward = 0, backward = 0;  // per token
    double merge = 0;                  // each time that the whole effective weight is formed
    double step = 0;                   // once per step
};

class Adapter {
  public:
    virtual ~Adapter() = default;

    /// y (N, out local) = x (N, in local) W_eff'. linear.weight() is the base weight in compute precision, or
    /// the effective weight if merged().
    virtual void forward(const Linear&, Tensor x, Tensor y) = 0;
    /// d_x = or += d_y W_eff; the gradients of parameters() += theirs.
    virtual void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) = 0;

    /// The weight that products use instead of the frozen W, for all local rows and with the current values;
    /// nothing if the adapter's map is not such a weight. Checkpoints, exports and run.init_from use this
    /// description.
    virtual std::optional<kernels::EffectiveWeight> effective_weight() { return std::nullopt; }
    /// What is added to the output (out local), f32 or f64; empty: nothing. Readers of checkpoints know it as
    /// <linear>.lora_bias, one of parameters().
    virtual Tensor bias() { return {}; }
    /// True if products run on the effective weight, formed beforehand by merge().
    virtual bool merged() const { return false; }
    /// out (rows, in local; compute type) = the effective weight of the local rows from row0 on, given those
    /// rows of the base.
    virtual void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out);

    /// Called with the linear's complete output y (N, out local): for a row-parallel linear after the
    /// half-block's sum over tp, and again when a block is recomputed. A loss on y adds its gradient to d_y
    /// inside backward(), in memory of its own, because others read d_y too.
    virtual void on_output(const Linear&, Tensor /*y*/) {}
    /// Where the model has a shadow: called with the complete output (N, out local) of the shadow's linear
    /// for the same tokens, before forward(), and again when a block is recomputed. Not in evaluations.
    virtual void on_shadow_output(const Linear&, Tensor /*y*/) {}

    /// Used by `plan` and for the utilisation.
    virtual Cost cost(const Linear&) const = 0;

    /// True if the weight itself, named <linear>.weight, is one of parameters() and is trained by the
    /// method's rules (with a projected gradient, for example). The linear then has no weight of its own.
    virtual bool owns_weight() const { return false; }
    virtual std::vector<Parameter*> parameters() = 0;
};

}  // namespace switchyard

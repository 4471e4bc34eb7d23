// Adapter: the local arithmetic of one linear whose map a method changes. It never communicates: what must be
// summed over tp joins the half-block's collective (activations) or the step's gradient reduction (factors).
#pragma once

#include <optional>
#include <vector>

#include "kernels/frozen_weight.hpp"
#include "kernels/matmul.hpp"
#include "model/parameter.hpp"

namespace switchyard {

class Linear;

using kernels::Write;

/// Operations of a linear's products, a multiply-add counted as two, over all ranks and without padding.
struct Cost {
    double forward = 0, backward = 0;  // per token
    double merge = 0;                  // each time that the effective weight is formed whole
    double step = 0;                   // once a step
};

class Adapter {
  public:
    virtual ~Adapter() = default;

    /// y (N, out local) = x (N, in local) W_eff'. linear.weight() is the base weight in compute precision, or
    /// the effective one if merged().
    virtual void forward(const Linear&, Tensor x, Tensor y) = 0;
    /// d_x = or += d_y W_eff, and the gradients of parameters() += .
    virtual void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) = 0;

    /// What products compute in place of the frozen W, in all local rows, with the values of now; nothing
    /// where the adapter's map is no such weight. Checkpoints, exports and run.init_from go by this
    /// description.
    virtual std::optional<kernels::EffectiveWeight> effective_weight() { return std::nullopt; }
    /// Whether products run on the effective weight formed beforehand by merge().
    virtual bool merged() const { return false; }
    /// out (rows, in local; compute type) = effective weight of local rows row0 ..., from those rows of the
    /// base.
    virtual void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out);

    /// The linear's complete output y (N, out local): after the half-block's sum over tp for a row-parallel
    /// one; again when a block is recomputed. A loss on it adds its gradient to d_y inside backward(), in
    /// memory of its own: others read d_y too.
    virtual void on_output(const Linear&, Tensor /*y*/) {}

    /// For `plan` and utilisation.
    virtual Cost cost(const Linear&) const = 0;

    /// Whether the weight itself is one of parameters(), named <linear>.weight and trained by the method's
    /// rules (a projected gradient, say): the linear then has no weight of its own.
    virtual bool owns_weight() const { return false; }
    virtual std::vector<Parameter*> parameters() = 0;
};

}  // namespace switchyard

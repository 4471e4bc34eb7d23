// Adapter: the local arithmetic of one linear whose map a method changes. It never communicates: what must be
// summed over tp joins the half-block's collective (activations) or the step's gradient reduction (factors).
#pragma once

#include <vector>

#include "kernels/frozen_weight.hpp"
#include "model/parameter.hpp"

namespace switchyard {

class Linear;

enum class Write { overwrite, accumulate };

class Adapter {
  public:
    virtual ~Adapter() = default;

    /// y (N, out local) = x (N, in local) W_eff'. linear.weight() is the base weight in compute precision, or
    /// the effective one if merged().
    virtual void forward(const Linear&, Tensor x, Tensor y) = 0;
    /// d_x = or += d_y W_eff, and the gradients of parameters() += .
    virtual void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) = 0;

    /// Whether products run on the effective weight formed beforehand by merge().
    virtual bool merged() const { return false; }
    /// out (rows, in local; compute type) = effective weight of local rows row0 ..., from those rows of the
    /// base.
    virtual void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out);

    /// A loss on the layer's output y (N, out local): seen in forward once it is complete (after the
    /// half-block's sum over tp for a row-parallel linear); d_y may be added to before backward. Both default
    /// to nothing.
    virtual void on_output(const Linear&, Tensor /*y*/) {}
    virtual void on_output_gradient(const Linear&, Tensor /*d_y*/) {}

    virtual std::vector<Parameter*> parameters() = 0;
};

}  // namespace switchyard

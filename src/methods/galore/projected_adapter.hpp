// ProjectedAdapter: a linear whose gradient G (m, n) is projected where it is formed and whose frozen words
// absorb the update. With the columns of an orthonormal basis Q of the projected dimension, R = G Q (or G' Q,
// if that is the output) has one row for each element of the other dimension, which is called kept here. The
// trained parameter is the direction N, in the shape of R.
#pragma once

#include "methods/parts/projection.hpp"

namespace switchyard {

class ProjectedAdapter : public Adapter {
  public:
    /// follows: there is memory for the gradient's image of a range (follow_range()).
    ProjectedAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, Projected, bool follows);

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    /// W alone: nothing is added to it.
    std::optional<kernels::EffectiveWeight> effective_weight() override { return kernels::EffectiveWeight{}; }
    Cost cost(const Linear&) const override;
    std::vector<Parameter*> parameters() override { return {&direction_}; }

    /// (kept local, r): the gradient is R; the value is N after an update and may hold a basis of the range
    /// of R between steps.
    Parameter& direction() { return direction_; }
    /// (projected local, r) in the compute type: Q.
    Tensor basis() const { return basis_; }
    /// (projected local, r) in accumulate type, or empty.
    Tensor image() const { return image_; }
    const Extent& projected() const { return projected_; }
    /// True if tp cuts the projected dimension.
    bool cut() const { return direction_.tp_gradient == TpGradient::partial; }
    /// The shape of G, or of G', whose rows are not projected: (kept local, projected local).
    Shape whole_shape() const { return {kept_.padded, projected_.padded}; }
    /// How the gradients of the tp ranks combine in tensors of the projected dimension.
    TpGradient tp_of_projected() const;

    /// While true, backward() also adds G' U (or G U) to image(), where U is the value of direction().
    void follow_range(bool on) { following_ = on; }
    /// While not empty, (kept local, projected local) in accumulate type: backward() adds G (or G') to it,
    /// and nothing to the direction's gradient.
    void accumulate_whole(Tensor gradient) { whole_ = gradient; }
    /// Number of steps that follow a range, or that take a basis from a whole gradient, in each step on
    /// average, for the cost.
    void set_followed(double steps) { followed_ = steps; }
    void set_whole(double steps) { wholes_ = steps; }

    /// W = base W + scale N Q' (or scale Q N') on this rank's rows of the stored base.
    void absorb(const Linear&, double scale, double base) const;

  private:
    bool of_inputs() const { return side_ == Projected::in; }

    Projected side_;
    Extent kept_, projected_;
    bool following_ = false;
    double followed_ = 0, wholes_ = 0;
    double copies_ = 1;  // ranks that update the same rows of the base
    Parameter direction_;
    Tensor basis_, image_, whole_;
    Tensor z_;        // (N, r), shared
    Tensor scratch_;  // bytes, shared: factors slot by slot in accumulate type, then the kernel's own
};

}  // namespace switchyard

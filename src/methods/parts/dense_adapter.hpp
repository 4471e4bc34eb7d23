// DenseAdapter: a linear whose whole weight W (out, in) is trained and stored with the elements of a chosen
// dimension as rows, so that these are whole at their owners.
#pragma once

#include "model/linear.hpp"

namespace switchyard {

class DenseAdapter : public Adapter {
  public:
    /// transposed: the rows are the elements of the input, and the value is W'.
    DenseAdapter(const ModelContext&, const Linear&, bool transposed);
    /// The initial values of a dense linear (Linear::initialise), bit for bit.
    void initialise(const ModelContext&, const Linear&) const;

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    Cost cost(const Linear&) const override;
    bool owns_weight() const override { return true; }
    std::vector<Parameter*> parameters() override { return {&weight_}; }

    /// (rows local, columns local): W or W', and its gradient.
    Parameter& weight() { return weight_; }
    /// Operations of an update, for the cost.
    void set_step_cost(double operations) { step_cost_ = operations; }

  private:
    Parameter weight_;
    double step_cost_ = 0;
};

}  // namespace switchyard

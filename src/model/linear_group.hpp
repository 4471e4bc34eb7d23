// LinearGroup: the linears that read one input: q, k and v; gate and up; others alone. They compute one after
// another unless the method gives them products that they share.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "model/linear.hpp"

namespace switchyard {

/// The local arithmetic of all linears of a group, instead of their adapters' forward() and backward(). Like
/// an adapter it never communicates.
class SharedProducts {
  public:
    virtual ~SharedProducts() = default;
    /// y[i] (N, out local) = x (N, in local) W_eff' of linears[i].
    virtual void forward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> y) = 0;
    /// d_x = or += the sum over i of d_y[i] W_eff of linears[i]; the gradients of all parameters += theirs.
    virtual void backward(std::span<const Linear> linears, Tensor x, std::span<const Tensor> d_y, Tensor d_x,
                          Write) = 0;
};

/// What a method puts beside the linears of a group.
struct GroupAdapters {
    std::vector<std::unique_ptr<Adapter>> of_linear;  // nullptr: trained densely
    std::unique_ptr<SharedProducts> shared;           // nullptr: each linear computes by itself
};

class LinearGroup {
  public:
    struct Output {
        std::string name;  // of the linear, in Hugging Face files without ".weight"
        Extent extent;
    };
    /// A linear for each output. Their addresses stay as they are, also when the group is moved.
    LinearGroup(Split, const Extent& in, std::initializer_list<Output>);

    void allocate(const ModelContext&, GroupAdapters);
    void set_recomputed();

    /// y[i] = x W' of linear i.
    void forward(Tensor x, std::initializer_list<Tensor> y) const;
    /// To be called for row-parallel linears when y[i] is summed over tp.
    void output_complete(std::initializer_list<Tensor> y) const;
    /// d_x = the sum over i of d_y[i] W of linear i; the gradients of all parameters += theirs.
    void backward(Tensor x, std::initializer_list<Tensor> d_y, Tensor d_x);

    std::span<Linear> linears() { return linears_; }
    const Linear& operator[](std::size_t i) const { return linears_[i]; }

  private:
    Split split_;
    std::vector<Linear> linears_;
    std::unique_ptr<SharedProducts> shared_;
};

/// The linears of groups, in their order.
std::vector<Linear*> linears_of(const std::vector<LinearGroup*>&);

/// attach(linear) returns the adapter of each linear, or nullptr; nothing is shared.
template <class Attach>
GroupAdapters attach_each(LinearGroup& group, const Attach& attach) {
    GroupAdapters result;
    for (Linear& linear : group.linears()) result.of_linear.push_back(attach(linear));
    return result;
}

}  // namespace switchyard

// LowRankProducts: the products of linears that read the same x with a low-rank pair beside each. The A
// factors are rows of one tensor, so x A' of all pairs is one product, and so are the gradient of all A and
// their part of d_x. What has one column per token is stored transposed, (slots, N): then the part of each
// pair is contiguous, and both gradients are products without a transposed operand.
#pragma once

#include "model/linear_group.hpp"

namespace switchyard {

class LowRankProducts : public SharedProducts {
  public:
    /// The B factor of one pair, (slots, out local) as its gradient, and the scale of the pair. d_w (out
    /// local, in local) in accumulate type, or empty: where it is, backward adds dY' x to it and leaves the
    /// gradients of A and B alone.
    struct Output {
        Tensor b, d_b, d_w;
        double scale = 1;
    };
    /// a, d_a (slots of all pairs, in local): A factors and gradients in the order of `outputs`.
    LowRankProducts(const ModelContext&, Tensor a, Tensor d_a, std::vector<Output> outputs);

    /// The adapters of all linears are merged, or none is.
    void forward(std::span<const Linear>, Tensor x, std::span<const Tensor> y) override;
    void backward(std::span<const Linear>, Tensor x, std::span<const Tensor> d_y, Tensor d_x, Write) override;
    /// From now on the weight of an unmerged linear counts `base` times; 0: its products are left out.
    void set_base(double base) { base_ = base; }

  private:
    /// z (slots, N) <- A x' of all pairs.
    void inputs_through_a(Tensor x) const;
    /// work(output i, rows of z for pair i, i)
    template <class Work>
    void each_pair(const Work&) const;

    Tensor a_, d_a_;
    std::vector<Output> outputs_;
    Tensor z_;  // (slots of all pairs, N), shared
    double base_ = 1;
};

/// The products of one linear whose factors lie by rows of their long dimension (FactorLayout::long_rows).
class LongRowProducts : public SharedProducts {
  public:
    /// A' (in local, r) and B (out local, r) as their gradients; d_w as in LowRankProducts.
    struct Pair {
        Tensor a, d_a, b, d_b, d_w;
        double scale = 1;
    };
    LongRowProducts(const ModelContext&, const Pair&);

    /// Of one linear.
    void forward(std::span<const Linear>, Tensor x, std::span<const Tensor> y) override;
    void backward(std::span<const Linear>, Tensor x, std::span<const Tensor> d_y, Tensor d_x, Write) override;

  private:
    Pair pair_;
    Tensor z_;  // (N, r), shared
};

}  // namespace switchyard

// Steps of a Newton-Schulz iteration bring the singular values of a matrix near 1 and keep its singular
// vectors: X <- a X + b (X X') X + c (X X')^2 X, begun at X / |X|, with the coefficients of Jordan et
// al. 2024 ("Muon: An optimizer for hidden layers in neural networks"): five steps bring what is between 0.01
// and 1 to between 0.68 and 1.14, and more steps leave it there. Local arithmetic in the compute type.
#pragma once

#include <cstdint>

#include "core/arena.hpp"

namespace switchyard {

/// Memory for matrices of some shapes, one at a time.
class NewtonSchulz {
  public:
    /// To be called for every shape (m, n) before allocate().
    void expect(std::int64_t m, std::int64_t n);
    void allocate(Arena&, DType compute);

    /// Where a matrix (m, n) is to be placed before run(), and memory of the same size that run() overwrites.
    Tensor input(std::int64_t m, std::int64_t n) const;
    Tensor spare(std::int64_t m, std::int64_t n) const;
    /// The image of input(m, n) is scale(iterations) times the tensor that is returned, which is input(m, n)
    /// or spare(m, n). A matrix of zeros stays zero.
    Tensor run(std::int64_t m, std::int64_t n, int iterations) const;
    static double scale(int iterations);

    /// Operations of run() on a matrix (m, n); a multiply-add counts as two.
    static double operations(std::int64_t m, std::int64_t n, int iterations);

  private:
    std::int64_t elements_ = 0, smaller_ = 0;
    Tensor input_, spare_;      // (largest m n) of the compute type
    Tensor gram_, polynomial_;  // (largest min(m, n)^2) of the compute type
    Tensor squared_norm_;       // (1) f64
};

}  // namespace switchyard

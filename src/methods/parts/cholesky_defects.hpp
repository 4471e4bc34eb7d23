// CholeskyDefects: which of a step's matrices had no Cholesky factor. The host reads the largest defect with
// the step's other scalars, and the rest only where that is not 0.
#pragma once

#include "core/arena.hpp"
#include "kernels/step_memory.hpp"

namespace switchyard {

class CholeskyDefects {
  public:
    void allocate(Arena&, kernels::StepScalars&, std::int64_t count);
    /// (count) f64 of those of matrices first ... first + count - 1, as kernels::cholesky() writes them.
    Tensor of(std::int64_t first, std::int64_t count) const { return defects_.rows(first, count); }
    /// To be called when all are written.
    void find_worst() const;
    /// The first matrix without a factor, from the scalars as read after the step; -1: all have one.
    std::int64_t first_bad(std::span<const double> scalars) const;

  private:
    Tensor defects_;  // (matrices) f64
    Tensor worst_;    // (1) f64 of the step's scalars
    int worst_slot_ = 0;
};

}  // namespace switchyard

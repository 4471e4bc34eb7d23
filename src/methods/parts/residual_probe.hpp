// ResidualProbe: checks that a merge, switch or reset did not change a linear's effective weight. It is
// computed from the stored base and the adapter's description, for the first rows of a matrix (design section
// 5), and judged after the host has read the step's scalars.
#pragma once

#include "kernels/step_memory.hpp"
#include "model/linear.hpp"
#include "optim/rank_values.hpp"

namespace switchyard {

class ResidualProbe {
  public:
    /// Takes work space for matrices of up to `widest_in` columns and `low_rank` slots, and slots for the
    /// step's scalars.
    void allocate(const ModelContext&, kernels::StepScalars&, std::int64_t widest_in, std::int64_t low_rank);

    void before(const Linear&);
    /// Compares with before() and leaves the result in the step's scalars. Collective over the world.
    void after(const Linear&);
    /// Returns max |W_eff before - W_eff after| / max |W_eff| over all ranks for the last after(), from the
    /// scalars of its step. Throws AgreedError naming the matrix if the difference exceeds 8 sqrt(terms) eps
    /// of the stored type, relative to the larger of max |W_eff| and max |W|: with a large method.alpha, W
    /// and s B A nearly cancel, and the rounding errors have their size. terms: the number of products summed
    /// per element.
    double judge(std::span<const double> scalars, const Linear&, std::int64_t terms) const;

  private:
    std::int64_t rows(const Linear&) const;
    Tensor effective(const Linear&, Tensor flat, Tensor largest_stored);

    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    Tensor before_, after_, a_, b_;  // flat
    Tensor numbers_;                 // (4) f64: the input of kernels::change_ratios, for this rank's rows
    Tensor ratios_;                  // (2) f64 of the step's scalars, from `slot_` on
    int slot_ = 0;
    RankValues of_ranks_;
};

}  // namespace switchyard

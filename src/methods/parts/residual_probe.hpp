// ResidualProbe: proof that a merge, switch or reset left a linear's effective weight alone, from the stored
// base and the adapter's description of the effective weight, on the first rows of a matrix (design section
// 5). What it finds is judged once the host has read the step's scalars.
#pragma once

#include "kernels/step_memory.hpp"
#include "model/linear.hpp"
#include "optim/rank_values.hpp"

namespace switchyard {

class ResidualProbe {
  public:
    /// Work space for matrices of up to `widest_in` columns and `low_rank` slots, and slots among the scalars
    /// of a step.
    void allocate(const ModelContext&, kernels::StepScalars&, std::int64_t widest_in, std::int64_t low_rank);

    void before(const Linear&);
    /// Compares with before() and leaves the result among the step's scalars. Collective over the world.
    void after(const Linear&);
    /// max |W_eff before - W_eff after| / max |W_eff| over all ranks, of the last after(), from the scalars
    /// of its step. Throws AgreedError naming the matrix when the difference exceeds 8 sqrt(terms) eps of the
    /// stored type, relative to the larger of max |W_eff| and max |W|: with a large method.alpha W and s B A
    /// nearly cancel, and it is their size that is rounded. terms: products summed up per element.
    double judge(std::span<const double> scalars, const Linear&, std::int64_t terms) const;

  private:
    std::int64_t rows(const Linear&) const;
    Tensor effective(const Linear&, Tensor flat, Tensor largest_stored);

    Traffic* traffic_ = nullptr;
    DType dtype_ = DType::f32;
    Tensor before_, after_, a_, b_;  // flat
    Tensor numbers_;                 // (4) f64: as kernels::change_ratios takes them, of this rank's rows
    Tensor ratios_;                  // (2) f64 of the step's scalars, from `slot_` on
    int slot_ = 0;
    RankValues of_ranks_;
};

}  // namespace switchyard

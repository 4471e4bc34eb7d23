// ResidualProbe: proof that a merge, switch or reset left a linear's effective weight alone, from the stored
// base and the compute copies of the factors, on the first rows of a matrix (design section 5).
#pragma once

#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class ResidualProbe {
  public:
    /// Work space for matrices of up to `widest_in` columns and `low_rank` slots.
    void allocate(const ModelContext&, std::int64_t widest_in, std::int64_t low_rank);

    void before(Linear&, LowRankAdapter&);
    /// max |W_eff before - W_eff after| / max |W_eff| over all ranks (collective over the world).
    /// Throws UserError naming the matrix when the difference exceeds 8 sqrt(terms) eps of the stored type,
    /// relative to the larger of max |W_eff| and max |W|: with a large method.alpha W and s B A nearly
    /// cancel, and it is their size that is rounded. terms: products summed up per element.
    double after(Linear&, LowRankAdapter&, std::int64_t terms);

  private:
    std::int64_t rows(const Linear&) const;
    Tensor effective(Linear&, LowRankAdapter&, Tensor flat);

    const Topology* topology_ = nullptr;
    DType dtype_ = DType::f32;
    Tensor before_, after_, a_, b_;  // flat
    double largest_stored_ = 0;      // max |W| since before(), rows of this rank
};

}  // namespace switchyard

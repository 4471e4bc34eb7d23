// ResidualProbe: proof that a merge, switch or reset left a linear's effective weight alone, from the stored
// base and the compute copies of the factors, on the first rows of a matrix (design section 5).
#pragma once

#include "methods/low_rank_adapter.hpp"

namespace switchyard {

class ResidualProbe {
  public:
    /// Work space for matrices of up to `widest_in` columns and `low_rank` slots.
    void allocate(const ModelContext&, std::int64_t widest_in, std::int64_t low_rank);

    void before(Linear&, LowRankAdapter&);
    /// max |W_eff before - W_eff after| / max |W_eff| over all ranks (collective over the world).
    /// Throws UserError naming the matrix above 8 sqrt(terms) eps of the stored type. terms: products summed
    /// up per element.
    double after(Linear&, LowRankAdapter&, std::int64_t terms);

  private:
    std::int64_t rows(const Linear&) const;
    Tensor effective(Linear&, LowRankAdapter&, Tensor flat);

    const Topology* topology_ = nullptr;
    DType dtype_ = DType::f32;
    Tensor before_, after_, a_, b_;  // flat
};

}  // namespace switchyard

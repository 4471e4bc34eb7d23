// FactorMove: a step of a factor F (L, r) by long rows along AdamW's direction of the whole weight, which
// comes from moments m and P of F's owned rows in coordinates of the partner Q (K, r)
// (kernels/pair_moments.hpp):
//   M = m Q', V_ji = q_i P_j q_i', D = M / (1-b1^t) / (sqrt(V / (1-b2^t)) + eps),
//   F -= lr (D Q S + weight_decay F), S = (Q' Q + damping I)^-1.
// M, V and D never exist whole, but for 64 owned rows at a time.
#pragma once

#include "kernels/adamw.hpp"
#include "model/context.hpp"
#include "model/parameter.hpp"

namespace switchyard {

class FactorMove {
  public:
    /// Of this rank's rows of a factor. Takes shared memory.
    FactorMove(const ModelContext&, const Parameter& factor, const Parameter& partner,
               std::int64_t owned_rows);

    struct Step {
        kernels::AdamWRows own;  // state of the owned rows; the gradient's rows are overwritten
        Tensor corrections;      // (2) f64: 1 / (1 - b1^t), 1 / (1 - b2^t)
        Tensor divisor;          // (r, r) f64: U with U' U = S^-1
        Tensor one;              // (1) f64: 1
        double eps = 0;
    };
    /// overlap (r, r) f64 <- F_old' F of the owned rows. Nothing moves where the finite flag of `clip` is 0.
    /// Collective over tp if the partner is cut.
    void run(const Step&, Tensor clip, Tensor overlap) const;
    /// Bytes that this rank sends for run().
    double bytes() const;

  private:
    /// All rows of the partner in accumulate type.
    Tensor whole_partner() const;

    const Parameter *factor_, *partner_;
    const Comm* tp_;
    Traffic* traffic_;
    int parts_;              // ranks among which the partner is cut over tp
    Tensor gathered_;        // (parts, local K, r): the partner, compute type; empty if it is not cut
    Tensor wide_;            // (K, r): the same, accumulate type
    Tensor pairs_;           // (K, r (r + 1) / 2)
    Tensor first_, second_;  // (at most 64, K): M, then D; V
    Tensor before_, after_;  // (R, r) f64: the owned values
};

}  // namespace switchyard

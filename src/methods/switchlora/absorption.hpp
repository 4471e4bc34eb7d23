// Absorption: W takes up the change that a switch makes to s B A, so that their sum stays the same: W += s
// [B_I, B_J - B'_J] [A_I - A'_I; A_J] on this rank's rows. It is computed from the compute copies, for as
// many matrices at a time as the work space holds. Primes mark incoming vectors; I and J are the slots of A
// and of B whose vectors are replaced.
#pragma once

#include <span>

#include "kernels/rows.hpp"
#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

/// A switch of one matrix, with `count` slots on each side.
struct AbsorbedSwitch {
    Linear* linear = nullptr;
    LowRankAdapter* adapter = nullptr;
    std::int64_t count = 0;
    kernels::Rows slots_a, slots_b;  // I, J
    Tensor incoming_a, incoming_b;   // (count, width): A', B'
};

class Absorption {
  public:
    /// Announces a matrix of which up to `at_once` slots per side may be switched at a time. To be called for
    /// all matrices before allocate().
    void expect(const ModelContext&, const Linear&, std::int64_t at_once);
    void allocate(const ModelContext&);

    /// Makes at most two kernel calls per matrix.
    void run(std::span<const AbsorbedSwitch>);

  private:
    std::int64_t elements(const AbsorbedSwitch&) const;

    std::int64_t largest_ = 0, together_ = 0, scratch_bytes_ = 0;  // expected; elements
    Tensor differences_;                                           // accumulate type, flat
    Tensor scratch_;                                               // shared
};

}  // namespace switchyard

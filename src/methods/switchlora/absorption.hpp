// Absorption: W gives way to what a switch changes in s B A, so that their sum stays: W += s [B_I, B_J -
// B'_J] [A_I - A'_I; A_J] on this rank's rows, from the compute copies, for as many matrices at a time as
// work space holds. Primes: incoming vectors; I, J: slots of A and of B whose vectors are replaced.
#pragma once

#include <span>

#include "kernels/rows.hpp"
#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

/// A switch of one matrix: `count` slots a side.
struct AbsorbedSwitch {
    Linear* linear = nullptr;
    LowRankAdapter* adapter = nullptr;
    std::int64_t count = 0;
    kernels::Rows slots_a, slots_b;  // I, J
    Tensor incoming_a, incoming_b;   // (count, width): A', B'
};

class Absorption {
  public:
    /// Another matrix, of which `at_once` slots a side may be switched at a time. All first, then allocate().
    void expect(const ModelContext&, const Linear&, std::int64_t at_once);
    void allocate(const ModelContext&);

    /// Two kernel calls a matrix at most.
    void run(std::span<const AbsorbedSwitch>);

  private:
    std::int64_t elements(const AbsorbedSwitch&) const;

    std::int64_t largest_ = 0, together_ = 0, scratch_bytes_ = 0;  // expected; elements
    Tensor differences_;                                           // accumulate type, flat
    Tensor scratch_;                                               // shared
};

}  // namespace switchyard

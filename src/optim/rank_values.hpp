// RankValues: a few f64 of every rank combined by a kernel, in rank order: the same bits on all ranks, and
// the host waits for nothing.
#pragma once

#include "comm/collectives.hpp"
#include "core/arena.hpp"
#include "kernels/reductions.hpp"

namespace switchyard {

class RankValues {
  public:
    RankValues() = default;
    RankValues(Arena&, const Comm&, std::int64_t count);

    /// values (count) f64 <- their sum, or largest, over the ranks. Collective. Scalars are not counted as
    /// traffic, the time they are waited for is.
    void combine(Tensor values, kernels::Combine, Traffic&) const;

  private:
    const Comm* comm_ = nullptr;
    Tensor all_;  // (P, count); empty with one rank
};

}  // namespace switchyard

// RankValues: combines a few f64 of every rank by a kernel, in rank order. The bits are the same on all
// ranks, and the host does not wait.
#pragma once

#include "comm/collectives.hpp"
#include "core/arena.hpp"
#include "kernels/reductions.hpp"

namespace switchyard {

class RankValues {
  public:
    RankValues() = default;
    RankValues(Arena&, const Comm&, std::int64_t count);

    /// values (count) f64 <- their sum, or maximum, over the ranks. Collective. Scalars do not count as
    /// traffic, but the time spent waiting for them is measured.
    void combine(Tensor values, kernels::Combine, Traffic&) const;

  private:
    const Comm* comm_ = nullptr;
    Tensor all_;  // (P, count); empty for one rank
};

}  // namespace switchyard

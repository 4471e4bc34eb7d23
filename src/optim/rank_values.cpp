// One all-gather, followed by the same sum on every rank.
#include "optim/rank_values.hpp"

namespace switchyard {

RankValues::RankValues(Arena& arena, const Comm& comm, std::int64_t count) : comm_(&comm) {
    if (comm.size() > 1) all_ = arena.take(MemoryClass::workspace, DType::f64, {comm.size(), count});
}

void RankValues::combine(Tensor values, kernels::Combine how, Traffic& traffic) const {
    if (all_.empty()) return;
    Traffic uncounted{.waits = traffic.waits};
    start_all_gather(*comm_, values, all_, uncounted, TrafficGroup::other).wait();
    kernels::combine_parts(all_, how, values);
}

}  // namespace switchyard

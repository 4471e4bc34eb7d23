// For back ends: a collective that the watchdog knows of and whose wait is timed.
#pragma once

#include <utility>

#include "comm/collectives.hpp"
#include "core/calls.hpp"
#include "core/last_calls.hpp"

namespace switchyard {

/// Counts and notes a collective before anything of it can hang. `bytes`: of the tensor here.
inline CollectiveCall begin_collective(const char* name, TrafficGroup group, const Comm& comm, double bytes) {
    count_call(Call::collective);
    const CollectiveCall call{name, name_of(group), comm.size(), bytes};
    note_collective(call, CollectiveState::begun);
    return call;
}

/// What an exchange sends to other ranks.
inline double bytes_to_others(const Comm& comm, std::span<const Tensor> send) {
    double bytes = 0;
    for (int p = 0; p < comm.size(); ++p)
        if (p != comm.rank()) bytes += static_cast<double>(send[p].bytes());
    return bytes;
}

/// A Pending that runs `finish` and notes the time for which the work stands still.
template <class Finish>
Pending timed_pending(Traffic& traffic, const CollectiveCall& call, Finish finish) {
    return Pending([&traffic, call, finish = std::move(finish)] {
        if (traffic.waits) traffic.waits->begin();
        note_collective(call, CollectiveState::awaited);
        finish();
        note_collective(call, CollectiveState::ended);
        if (traffic.waits) traffic.waits->end();
    });
}

}  // namespace switchyard

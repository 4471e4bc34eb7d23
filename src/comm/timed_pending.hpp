// For back ends: a collective whose wait is timed.
#pragma once

#include <utility>

#include "comm/collectives.hpp"

namespace switchyard {

/// A Pending that runs `finish` and notes the time for which the work stands still.
template <class Finish>
Pending timed_pending(Traffic& traffic, Finish finish) {
    return Pending([&traffic, finish = std::move(finish)] {
        if (traffic.waits) traffic.waits->begin();
        finish();
        if (traffic.waits) traffic.waits->end();
    });
}

}  // namespace switchyard

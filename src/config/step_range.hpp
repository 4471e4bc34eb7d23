// Steps first to last as text: "10:12".
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

struct StepRange {
    std::int64_t first = 0, last = -1;
    bool empty() const { return last < first; }
};

/// "" is empty. Throws UserError unless the text is two step numbers in order, the first at least 1; `key` is
/// for the message.
StepRange step_range(const std::string& key, const std::string& text);

}  // namespace switchyard

// The phases of a training step, by which time and calls are counted.
#pragma once

namespace switchyard {

enum class Phase { data, forward, backward, communication, optimizer, switching, checkpoint };
inline constexpr int num_phases = 7;
inline const char* name_of(Phase phase) {
    constexpr const char* names[] = {"data",      "forward",   "backward",  "communication",
                                     "optimizer", "switching", "checkpoint"};
    return names[static_cast<int>(phase)];
}

}  // namespace switchyard

// Does the batch system's signal come early enough to save? run.signal_lead beside the longest step and save.
#pragma once

#include <string>

namespace switchyard {

/// What a step and a save took at most; 0: not measured.
struct LongestTimes {
    double step_s = 0, save_s = 0;
};

/// Over the steps and saves in a log.jsonl; lines that cannot be read do not count.
LongestTimes longest_times(const std::string& log_path);

struct SignalLead {
    bool enough = false;
    std::string text;  // for people: the times compared and, when too short, what to ask for
};
/// lead_s: SIGUSR1 comes so long before the job ends. The signal may come at the beginning of a step, so
/// that step and a save must fit. `expected_save_s` stands in for a save that was not measured.
SignalLead judge_signal_lead(double lead_s, LongestTimes measured, double expected_save_s);

}  // namespace switchyard

// Does the batch system's signal come early enough to save? run.signal_lead beside the longest step and save.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace switchyard {

/// The longest step and the longest save so far; 0: not measured.
struct LongestTimes {
    double step_s = 0, save_s = 0;
    /// A line of log.jsonl; only steps and saves count.
    void add(const nlohmann::ordered_json& line);
};

struct SignalLead {
    bool enough = false;
    std::string text;  // for people: the times compared and, when too short, what to ask for
};
/// lead_s: time from SIGUSR1 to the end of the job. The signal may come at the beginning of a step, so
/// that step and a save must fit. `expected_save_s` stands in for a save that was not measured.
SignalLead judge_signal_lead(double lead_s, LongestTimes measured, double expected_save_s);

}  // namespace switchyard

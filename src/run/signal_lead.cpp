// Measured times come from the log, so that a resumed run knows them before its first save.
#include "run/signal_lead.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace switchyard {

void LongestTimes::add(const nlohmann::ordered_json& line) {
    const auto seconds = [&](const char* key) {
        const auto value = line.find(key);
        return value != line.end() && value->is_number() ? value->get<double>() : 0;
    };
    step_s = std::max(step_s, seconds("step_s"));
    if (line.value("event", nlohmann::ordered_json()) == "save")
        save_s = std::max(save_s, seconds("seconds"));
}

SignalLead judge_signal_lead(double lead_s, LongestTimes measured, double expected_save_s) {
    const bool save_known = measured.save_s > 0;
    const double save_s = save_known ? measured.save_s : expected_save_s, needed_s = measured.step_s + save_s;
    const std::string times =
        fmt::format("SIGUSR1 comes {:.0f} s before the job ends, {}a save {} {:.2f} s", lead_s,
                    measured.step_s > 0 ? fmt::format("a step took up to {:.2f} s, ", measured.step_s) : "",
                    save_known ? "took up to" : "was not measured yet and is expected to take", save_s);
    if (needed_s <= lead_s) return {true, times + ": enough"};
    return {false,
            fmt::format("{} (the job may be killed while it saves); submit with --signal=USR1@{:.0f} or "
                        "more",
                        times, 10 * std::ceil((2 * needed_s + 10) / 10))};
}

}  // namespace switchyard

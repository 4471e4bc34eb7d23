// Measured times come from the log, so that a resumed run knows them before its first save.
#include "run/signal_lead.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace switchyard {

LongestTimes longest_times(const std::string& log_path) {
    LongestTimes longest;
    std::ifstream log(log_path);
    for (std::string line; std::getline(log, line);) {
        const auto record = nlohmann::json::parse(line, nullptr, false);
        if (!record.is_object()) continue;
        const auto seconds = [&](const char* key) {
            const auto value = record.find(key);
            return value != record.end() && value->is_number() ? value->get<double>() : 0;
        };
        longest.step_s = std::max(longest.step_s, seconds("step_s"));
        if (record.value("event", nlohmann::json()) == "save")
            longest.save_s = std::max(longest.save_s, seconds("seconds"));
    }
    return longest;
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
            fmt::format("{} (the job may be killed while it saves) submit with --signal=USR1@{:.0f} or "
                        "more",
                        times, 10 * std::ceil((2 * needed_s + 10) / 10))};
}

}  // namespace switchyard

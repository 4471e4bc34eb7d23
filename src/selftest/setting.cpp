// Measurement and agreement.
#include "selftest/setting.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "comm/messages.hpp"
#include "core/host.hpp"
#include "core/sign_of_life.hpp"
#include "core/timer.hpp"
#include "core/units.hpp"

namespace switchyard::selftest {

std::string Setting::rank_text(int rank) const {
    return fmt::format("rank {} ({})", rank, hosts[static_cast<std::size_t>(rank)]);
}

Setting make_setting(const Config& config, const Topology& topology) {
    Setting setting{config, topology, dtype_from_name(config.run.dtype), {}};
    const std::vector<std::string> names = gather(topology.world, host_name());
    std::istringstream lines(broadcast(topology.world, fmt::format("{}", fmt::join(names, "\n"))));
    for (std::string name; std::getline(lines, name);) setting.hosts.push_back(name);
    setting.hosts.resize(static_cast<std::size_t>(topology.world.size()), "unknown");
    return setting;
}

std::string problem_of(const Setting& setting, const std::function<void()>& work) {
    sign_of_life("self-test");
    std::string message;
    try {
        work();
    } catch (const std::exception& error) {
        message = error.what();
        if (message.empty()) message = "an error without a message";
    }
    const FirstText first = first_text(setting.topology.world, message);
    if (first.text.empty() || setting.topology.world.size() == 1) return first.text;
    return setting.rank_text(first.rank) + ": " + first.text;
}

std::vector<double> Timing::rates(double amount) const {
    std::vector<double> rates;
    for (double s : seconds) rates.push_back(amount / s);
    return rates;
}

Timing time_of(const Setting& setting, const std::function<void()>& work) {
    constexpr double budget_s = 0.05;
    constexpr int fewest_calls = 3, most_calls = 1000;
    const Comm& world = setting.topology.world;
    barrier(world);
    double best_s = 0;
    Timing timing;
    timing.problem = problem_of(setting, [&] {
        Stamps stamps;
        work();  // the first call prepares what later ones reuse
        const double end_s = seconds_now() + budget_s;
        for (int call = 0; call < fewest_calls || (call < most_calls && seconds_now() < end_s); ++call) {
            stamps.stamp(0);
            work();
            stamps.stamp(1);
            const double s = stamps.seconds(0, 1);
            if (call == 0 || s < best_s) best_s = s;
        }
    });
    // A clock that did not move says nothing; its resolution is below a microsecond.
    if (timing.problem.empty()) timing.seconds = gather_values(world, std::max(best_s, 1e-9));
    return timing;
}

Line rate_line(const Setting& setting, Line line, const Timing& timing, double amount,
               const std::string& unit) {
    if (!timing.problem.empty()) {
        line.verdict = Verdict::failed;
        line.result = "not measured";
        line.advice = timing.problem;
        return line;
    }
    const Spread rates = spread_of(timing.rates(amount));
    line.verdict = worse(line.verdict, verdict_of_rates(rates));
    line.result = count_text(rates.least) + unit;
    if (timing.seconds.size() > 1) line.result += " (median " + count_text(rates.median) + unit + ")";
    if (line.verdict == Verdict::slow && line.advice.empty())
        line.advice = fmt::format(
            "{} is slower than most ranks (every step waits for it); look there for other processes, a wrong "
            "binding or a low clock, or leave its node out",
            setting.rank_text(rates.least_rank));
    line.numbers[unit == "FLOP/s" ? "flop_per_s" : "bytes_per_s"] = json_of(rates);
    return line;
}

}  // namespace switchyard::selftest

// A process has one set of counters, because it runs one step at a time.
#include "core/call_counts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <string_view>

namespace switchyard {
namespace {

bool environment_asks() {
    const char* value = std::getenv("SWITCHYARD_COUNT_CALLS");
    return value && std::string_view(value) == "1";
}

struct Counters {
    std::array<std::atomic<std::int64_t>, num_calls> calls{};  // since the last phase
    std::map<std::string, std::int64_t> kernels;
    StepCalls step, last_step, most;  // most: the maximum over all steps, number by number
    CallCounts most_in_all;           // the maximum over all steps, of all phases together
    int steps = 0;
};

Counters& counters() {
    static Counters all;
    return all;
}

void forget_calls() {
    for (auto& calls : counters().calls) calls = 0;
    counters().kernels.clear();
}

void raise_to(CallCounts& most, const CallCounts& counts) {
    for (int c = 0; c < num_calls; ++c) most.calls[c] = std::max(most.calls[c], counts.calls[c]);
}

/// "12", or "12 (most 14)".
std::string cell(std::int64_t last, std::int64_t most) {
    return most == last ? fmt::format("{}", last) : fmt::format("{} (most {})", last, most);
}

std::string row(std::string_view name, const CallCounts& last, const CallCounts& most) {
    std::string text = fmt::format("            {:<14}", name);
    for (int c = 0; c < num_calls; ++c) text += fmt::format("{:>18}", cell(last.calls[c], most.calls[c]));
    return text;
}

}  // namespace

namespace detail {

bool counting_calls = environment_asks();

void note_call(Call call, const char* name) {
    ++counters().calls[static_cast<int>(call)];
    if (name) ++counters().kernels[name];
}

}  // namespace detail

std::int64_t StepCalls::total(Call call) const {
    std::int64_t sum = 0;
    for (const CallCounts& counts : phases) sum += counts[call];
    return sum;
}

void count_calls(bool on) {
    detail::counting_calls = on;
    forget_calls();
    Counters& all = counters();
    all.step = all.last_step = all.most = {};
    all.most_in_all = {};
    all.steps = 0;
}

CountedStep::CountedStep() {
    if (!detail::counting_calls) return;
    forget_calls();
    counters().step = {};
}

CountedStep::~CountedStep() {
    if (!detail::counting_calls || std::uncaught_exceptions() > 0) return;
    Counters& all = counters();
    all.last_step = all.step;
    for (int p = 0; p < num_phases; ++p) raise_to(all.most.phases[p], all.step.phases[p]);
    CallCounts in_all;
    for (int c = 0; c < num_calls; ++c) in_all.calls[c] = all.step.total(static_cast<Call>(c));
    raise_to(all.most_in_all, in_all);
    ++all.steps;
}

void end_counted_phase(Phase phase) {
    if (!detail::counting_calls) return;
    const CallCounts since = calls_since_phase();
    CallCounts& counts = counters().step.phases[static_cast<int>(phase)];
    for (int c = 0; c < num_calls; ++c) counts.calls[c] += since.calls[c];
    for (const auto& [name, calls] : since.kernels) counts.kernels[name] += calls;
    forget_calls();
}

CallCounts calls_since_phase() {
    CallCounts since;
    for (int c = 0; c < num_calls; ++c) since.calls[c] = counters().calls[c];
    since.kernels = counters().kernels;
    return since;
}

StepCalls calls_of_last_step() {
    return counters().last_step;
}

std::vector<std::string> call_count_lines() {
    const Counters& all = counters();
    if (all.steps == 0) return {};
    std::vector<std::string> lines{fmt::format("calls       {:<14}{:>18}{:>18}{:>18}{:>18}{:>18}{:>18}",
                                               "in the last step", "kernels", "host reads", "uploads",
                                               "allocations", "collectives", "launches")};
    CallCounts in_all;
    for (int p = 0; p < num_phases; ++p) {
        const CallCounts &counts = all.last_step.phases[p], &largest = all.most.phases[p];
        if (largest.calls == decltype(largest.calls){}) continue;
        lines.push_back(row(name_of(static_cast<Phase>(p)), counts, largest));
        for (int c = 0; c < num_calls; ++c) in_all.calls[c] += counts.calls[c];
        std::vector<std::pair<std::string, std::int64_t>> by_number(counts.kernels.begin(),
                                                                    counts.kernels.end());
        std::stable_sort(by_number.begin(), by_number.end(),
                         [](const auto& a, const auto& b) { return a.second > b.second; });
        std::string names;
        for (const auto& [name, calls] : by_number)
            names += fmt::format("{}{} {}", names.empty() ? "" : ", ", name, calls);
        if (!names.empty()) lines.push_back("              " + names);
    }
    lines.push_back(row("all", in_all, all.most_in_all));
    return lines;
}

}  // namespace switchyard

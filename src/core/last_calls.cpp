// The record is global, because a process has one. Its values are stored separately, so for some nanoseconds
// they may belong to different calls.
#include "core/last_calls.hpp"

#include <fmt/format.h>

#include "core/units.hpp"

namespace switchyard {
namespace {

template <class T>
using Noted = std::atomic<T>;
constexpr auto relaxed = std::memory_order_relaxed;

Noted<const char*> phase_now{nullptr}, collective_name{nullptr}, collective_group{nullptr};
Noted<int> collective_ranks{0};
Noted<double> collective_bytes{0};
Noted<CollectiveState> collective_state{CollectiveState::ended};
Noted<bool> device_awaited{false};

const char* text_of(CollectiveState state) {
    constexpr const char* texts[] = {"begun", "the host waits for it", "the host has gone on"};
    return texts[static_cast<int>(state)];
}

std::string text_of(const CollectiveCall& call, CollectiveState state) {
    std::string text = call.name;
    if (call.group) text += fmt::format(" of {}", call.group);
    if (call.bytes > 0) text += fmt::format(", {}", bytes_text(call.bytes));
    return fmt::format("{} over {} ranks, {}", text, call.ranks, text_of(state));
}

}  // namespace

std::atomic<const char*> detail::last_kernel{nullptr};

void note_phase(const char* phase) {
    phase_now.store(phase, relaxed);
}

void note_collective(const CollectiveCall& call, CollectiveState state) {
    collective_name.store(call.name, relaxed);
    collective_group.store(call.group, relaxed);
    collective_ranks.store(call.ranks, relaxed);
    collective_bytes.store(call.bytes, relaxed);
    collective_state.store(state, relaxed);
}

WaitingForDevice::WaitingForDevice() {
    device_awaited.store(true, relaxed);
}

WaitingForDevice::~WaitingForDevice() {
    device_awaited.store(false, relaxed);
}

LastCalls last_calls() {
    return {phase_now.load(relaxed),
            detail::last_kernel.load(relaxed),
            {collective_name.load(relaxed), collective_group.load(relaxed), collective_ranks.load(relaxed),
             collective_bytes.load(relaxed)},
            collective_state.load(relaxed),
            device_awaited.load(relaxed)};
}

std::string text_of(const LastCalls& calls) {
    std::string text;
    const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
    if (calls.phase) add(fmt::format("phase {}", calls.phase));
    if (calls.kernel) add(fmt::format("last kernel: {}", calls.kernel));
    if (calls.collective.name) add("last collective: " + text_of(calls.collective, calls.state));
    if (calls.device_awaited) add("the host waits for the device");
    return text;
}

}  // namespace switchyard

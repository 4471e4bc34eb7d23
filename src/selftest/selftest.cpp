// The order of the test: where we are, whether kernels are right, how fast they are, then what connects ranks
// and what they write to.
#include "selftest/selftest.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/processor.hpp"
#include "core/timer.hpp"
#include "selftest/compute.hpp"
#include "selftest/files.hpp"
#include "selftest/network.hpp"

namespace switchyard::selftest {
namespace {

/// Of rank 0, with the device of each rank by name. The line, with what is wrong with the binding, is the
/// same on all ranks.
nlohmann::ordered_json find_environment(const Setting& setting, const StartInfo& start, Line& binding) {
    const Comm& world = setting.topology.world;
    nlohmann::ordered_json found = environment(setting.topology, start, "");
    const backend::Processor processor = backend::processor();
    const std::string problem =
        problem_of(setting, [&] { require(processor.problem.empty(), "{}", processor.problem); });
    const std::vector<std::string> devices = gather(world, processor.name);
    std::string text, result;
    if (world.rank() == 0) {
        for (std::size_t rank = 0; rank < devices.size(); ++rank)
            found["ranks"][rank]["device"] = devices[rank];
        text = crowding_text(found);
        if (text.empty()) text = idle_text(found);
        result = fmt::format("{} ranks of {} threads, rank 0 on cores {}", found["num_ranks"].get<int>(),
                             found["num_threads"].get<int>(), found["ranks"][0]["cores"].get<std::string>());
    }
    binding = {.section = "surroundings", .name = "binding", .result = broadcast(world, result)};
    text = broadcast(world, text);
    binding.advice = problem.empty() ? text : problem;
    if (!binding.advice.empty()) binding.verdict = problem.empty() ? Verdict::slow : Verdict::failed;
    binding.numbers["device_memory"] = broadcast(world, std::int64_t{processor.is_gpu}) != 0;
    return found;
}

/// Does MPI take pointers into GPU memory, and does it matter?
Line gpu_awareness_line(bool device_memory) {
    Line line{.section = "surroundings", .name = "MPI and GPU memory", .result = gpu_awareness()};
    line.numbers = {{"gpu_aware_mpi", gpu_awareness()}, {"device_memory", device_memory}};
    if (!device_memory) {
        line.result += "; not needed, tensors lie in host memory";
    } else if (line.result != "yes") {
        line.verdict = Verdict::slow;
        line.advice =
            "MPI does not say that it takes GPU memory (messages between GPUs may pass through host memory); "
            "use an MPI library built for these GPUs, or NCCL with one GPU per rank";
    }
    return line;
}

}  // namespace

Verdict Result::verdict() const {
    Verdict worst = Verdict::ok;
    for (const Line& line : lines) worst = worse(worst, line.verdict);
    return worst;
}

int Result::count(Verdict verdict) const {
    return static_cast<int>(
        std::count_if(lines.begin(), lines.end(), [&](const Line& line) { return line.verdict == verdict; }));
}

Result run(const Config& config, const Topology& topology, const StartInfo& start) {
    const double start_s = seconds_now();
    const Setting setting = make_setting(config, topology);
    Result result;
    const auto add = [&](std::vector<Line> lines) {
        std::move(lines.begin(), lines.end(), std::back_inserter(result.lines));
    };
    Line binding;
    result.environment = find_environment(setting, start, binding);
    const bool device_memory = binding.numbers["device_memory"];
    add({binding, gpu_awareness_line(device_memory)});
    add(kernel_lines(setting));
    add(product_lines(setting));
    add(copy_lines(setting));
    add(attention_lines(setting));
    add(fused_attention_lines(setting));
    add(collective_lines(setting));
    add(file_lines(setting));
    result.seconds = all_reduce_max(topology.world, seconds_now() - start_s);
    return result;
}

}  // namespace switchyard::selftest

// Everything is asked of the running process and its libraries; only the compiler and the revision come from
// the build.
#include "run/environment.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/collectives_choice.hpp"
#include "comm/library.hpp"
#include "core/host.hpp"
#include "core/processor.hpp"
#include "core/version.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "kernels/matmul.hpp"

extern char** environ;

namespace switchyard {
namespace {

using nlohmann::ordered_json;

/// The cores that this process may use: "0-3,8".
std::string binding() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return "unknown";
    std::string text;
    for (int core = 0; core < CPU_SETSIZE; ++core) {
        if (!CPU_ISSET(core, &set)) continue;
        int last = core;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
        text += fmt::format("{}{}", text.empty() ? "" : ",", core);
        if (last > core) text += fmt::format("-{}", last);
        core = last;
    }
    return text;
}

/// Adds the cores of binding()'s text to a set.
void add_cores(const std::string& binding, std::set<int>& cores) {
    std::istringstream ranges(binding);
    for (std::string range; std::getline(ranges, range, ',');) {
        int first = 0, last = 0;
        const int numbers = std::sscanf(range.c_str(), "%d-%d", &first, &last);
        for (int core = first; numbers >= 1 && core <= (numbers == 2 ? last : first); ++core)
            cores.insert(core);
    }
}

/// Ranks and cores of each host.
std::map<std::string, std::pair<int, std::set<int>>> use_of_hosts(const ordered_json& environment) {
    std::map<std::string, std::pair<int, std::set<int>>> hosts;
    for (const ordered_json& rank : environment["ranks"]) {
        auto& [ranks, cores] = hosts[rank["host"]];
        ++ranks;
        add_cores(rank["cores"], cores);
    }
    return hosts;
}

/// Hardware threads of a core; 1 where the system does not say.
int threads_per_core() {
    std::string siblings;
    std::ifstream("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") >> siblings;
    std::set<int> of_core;
    add_cores(siblings, of_core);
    return std::max(1, static_cast<int>(of_core.size()));
}

ordered_json relevant_variables() {
    constexpr std::string_view prefixes[] = {"SLURM_", "OMP_",       "KMP_",      "GOMP_",
                                             "DNNL_",  "ONEDNN_",    "OMPI_MCA_", "OMPI_COMM_WORLD_SIZE",
                                             "HDF5_",  "UCX_",       "PMIX_MCA_", "PMI_SIZE",
                                             "MPICH_", "MPIR_CVAR_", "HYDRA_",    "FI_"};
    constexpr std::string_view secrets[] = {"TOKEN", "JWT", "SECRET", "PASSWORD", "KEY"};
    std::vector<std::string> lines;
    for (char** variable = environ; *variable; ++variable) {
        const std::string_view line(*variable), name = line.substr(0, line.find('='));
        if (std::any_of(std::begin(secrets), std::end(secrets),
                        [&](std::string_view s) { return name.find(s) != name.npos; }))
            continue;
        for (std::string_view prefix : prefixes)
            if (line.substr(0, prefix.size()) == prefix) {
                lines.emplace_back(line);
                break;
            }
    }
    std::sort(lines.begin(), lines.end());
    ordered_json variables = ordered_json::object();
    for (const std::string& line : lines) {
        const std::size_t equals = line.find('=');
        variables[line.substr(0, equals)] = equals == std::string::npos ? "" : line.substr(equals + 1);
    }
    return variables;
}

bool on_gpus(const ordered_json& environment) {
    return environment["ranks"].at(0).contains("gpu");
}

std::string gpu_crowding_text(const ordered_json& environment) {
    std::map<std::pair<std::string, int>, int> ranks_of;
    for (const ordered_json& rank : environment["ranks"]) {
        const std::string host = rank["host"];
        const int gpu = rank["gpu"]["number"], ranks = ++ranks_of[{host, gpu}];
        if (ranks == 2)
            return fmt::format(
                "several ranks share GPU {} of {} (they take turns, and their collectives go through host "
                "memory); "
                "start one rank per GPU",
                gpu, host);
    }
    return "";
}

}  // namespace

std::vector<std::string> rank_lines(const ordered_json& environment) {
    if (!on_gpus(environment)) return {};
    std::vector<std::string> lines;
    for (std::size_t r = 0; r < environment["ranks"].size(); ++r) {
        const ordered_json& rank = environment["ranks"][r];
        lines.push_back(fmt::format("rank {:<6} {}, GPU {} ({}), cores {}", r, std::string(rank["host"]),
                                    int{rank["gpu"]["number"]}, std::string(rank["gpu"]["name"]),
                                    std::string(rank["cores"])));
    }
    constexpr std::size_t most = 16;
    if (lines.size() > most) {
        const std::size_t left = lines.size() - most;
        lines.resize(most);
        lines.push_back(fmt::format("            and {} more ranks, all in environment.json", left));
    }
    const ordered_json& ways = environment["collectives"];
    lines.push_back(
        fmt::format("collectives dp: {}; tp: {}", std::string(ways["dp"]), std::string(ways["tp"])));
    lines.push_back("attention   " + std::string(environment["attention"]));
    return lines;
}

std::string crowding_text(const ordered_json& environment) {
    const int threads = environment["num_threads"];
    if (on_gpus(environment)) return gpu_crowding_text(environment);
    for (const auto& [host, use] : use_of_hosts(environment)) {
        const auto& [ranks, cores] = use;
        const int num_cores = static_cast<int>(cores.size());
        const int fitting = std::max(1, num_cores / ranks);
        if (num_cores > 0 && ranks * threads > num_cores)
            return fmt::format(
                "{} rank{} of {} thread{} share {} core{} of {} (they take turns, and every step waits for "
                "the last); {} and check the binding",
                ranks, ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", num_cores,
                num_cores == 1 ? "" : "s", host,
                fitting < threads ? fmt::format("set OMP_NUM_THREADS={}", fitting) : "start fewer ranks");
    }
    return "";
}

std::string idle_text(const ordered_json& environment) {
    const int threads = environment["num_threads"], per_core = environment.value("threads_per_core", 1);
    if (on_gpus(environment)) return "";
    for (const auto& [host, use] : use_of_hosts(environment)) {
        const auto& [ranks, cpus] = use;
        const int cores = static_cast<int>(cpus.size()) / std::max(1, per_core), used = ranks * threads;
        if (used < cores && cores / ranks > threads)
            return fmt::format(
                "{} rank{} of {} thread{} use{} {} of {} cores of {} (the others do nothing for this run); "
                "set OMP_NUM_THREADS={}, or start more ranks",
                ranks, ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", ranks == 1 ? "s" : "", used,
                cores, host, cores / ranks);
    }
    return "";
}

ordered_json environment(const Topology& topology, const StartInfo& start, const std::string& attention) {
    const backend::Processor mine = backend::processor();
    ordered_json place{{"host", host_name()}, {"cores", binding()}};
    if (mine.is_gpu) place["gpu"] = {{"number", mine.number}, {"name", mine.name}};
    const std::string between_dp = collectives_text(topology.dp), between_tp = collectives_text(topology.tp);
    const std::vector<std::string> places = gather(topology.world, place.dump());
    if (topology.world.rank() != 0) return {};
    ordered_json ranks = ordered_json::array();
    for (const std::string& text : places) ranks.push_back(ordered_json::parse(text));
    ordered_json result;
    result["version"] = version().number;
    result["revision"] = version().revision;
    result["compiler"] = __VERSION__;
    result["mpi"] = mpi_library();
    result["gpu_aware_mpi"] = gpu_awareness();
    result["collectives"] = {{"dp", between_dp}, {"tp", between_tp}};
    result["hdf5"] = hdf5_version();
    result["mpi_io"] = mpi_io_component();
    result["products"] = kernels::matmul_library();
    if (!attention.empty()) result["attention"] = attention;
    result["cpu"] = cpu_name();
    result["command"] = start.command;
    result["num_ranks"] = topology.world.size();
    result["dp"] = topology.dp_size();
    result["tp"] = topology.tp_size();
    result["num_threads"] = kernels::num_threads();
    result["threads_per_core"] = threads_per_core();
    result["ranks"] = ranks;
    result["variables"] = relevant_variables();
    return result;
}

}  // namespace switchyard

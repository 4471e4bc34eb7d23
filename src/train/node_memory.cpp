// Control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max), and version 1
// (limit_in_bytes).
#include "train/node_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/units.hpp"

namespace switchyard {
namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

/// The number behind `key` in a file of lines "key number ..."; `otherwise` where there is none.
double number_behind(const std::string& file, const std::string& key, double otherwise) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string word;
        double number = 0;
        if (words >> word && word == key && words >> number) return number;
    }
    return otherwise;
}

double number_in(const std::string& file) {
    std::ifstream in(file);
    double number = 0;
    return in >> number ? number : unlimited;  // "max"
}

struct Hierarchy {
    std::string base, limit, used;  // folder; file with the limit; key in memory.stat
};

/// What the group `path` and those above it leave.
double rest_of_group(const Hierarchy& h, std::string path) {
    double rest = unlimited;
    for (;;) {
        const std::string folder = h.base + path;
        const double limit = number_in(folder + "/" + h.limit);
        rest = std::min(rest, std::max(0.0, limit - number_behind(folder + "/memory.stat", h.used, 0)));
        if (path.empty() || path == "/") return rest;
        path.resize(path.rfind('/'));
    }
}

}  // namespace

double available_bytes(const std::string& root) {
    const std::string meminfo = root + "/proc/meminfo";
    const double kib = number_behind(meminfo, "MemAvailable:", unlimited);
    double available = 1024 * (kib + number_behind(meminfo, "SwapFree:", 0));
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1),
                          path = line.substr(second + 1), base = root + "/sys/fs/cgroup";
        if (controllers.empty())
            available = std::min(available, rest_of_group({base, "memory.max", "anon"}, path));
        if (controllers == "memory")
            available = std::min(
                available, rest_of_group({base + "/memory", "memory.limit_in_bytes", "total_rss"}, path));
    }
    return available;
}

Arena allocate_arena(const Topology& topology, const Arena& measured) {
    const auto mine = static_cast<double>(measured.total_bytes());
    const double together = all_reduce_sum(topology.node, mine);
    agree_on(topology.world, [&] {
        const double available = available_bytes();
        require(
            together <= available,
            "out of memory: {} ranks on {} need {}, {} are available (this rank needs {}: {}) use more "
            "nodes, "
            "a larger parallel.tp, a smaller data.micro_batch or model.recompute; `switchyard plan` shows "
            "the cost before a run",
            topology.node.size(), host_name(), bytes_text(together), bytes_text(available), bytes_text(mine),
            measured.text());
    });
    return agreed(topology.world, [&] { return Arena::allocate(measured); });
}

}  // namespace switchyard

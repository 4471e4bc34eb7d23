// Control groups of version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max) and of version
// 1 (limit_in_bytes).
#include "core/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

namespace switchyard {
namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

/// The number after `key` in a file of lines "key number ..."; `otherwise` if the key is missing.
double value_after(const std::string& file, const std::string& key, double otherwise) {
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

/// The memory left in group `path` and in all groups above it, whichever is less.
double memory_left_in_group(const Hierarchy& h, std::string path) {
    double rest = unlimited;
    for (;;) {
        const std::string folder = h.base + path;
        const double limit = number_in(folder + "/" + h.limit);
        rest = std::min(rest, std::max(0.0, limit - value_after(folder + "/memory.stat", h.used, 0)));
        if (path.empty() || path == "/") return rest;
        path.resize(path.rfind('/'));
    }
}

}  // namespace

double available_bytes(const std::string& root) {
    const std::string meminfo = root + "/proc/meminfo";
    const double kib = value_after(meminfo, "MemAvailable:", unlimited);
    double available = 1024 * (kib + value_after(meminfo, "SwapFree:", 0));
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1),
                          path = line.substr(second + 1), base = root + "/sys/fs/cgroup";
        if (controllers.empty())
            available = std::min(available, memory_left_in_group({base, "memory.max", "anon"}, path));
        if (controllers == "memory")
            available = std::min(
                available,
                memory_left_in_group({base + "/memory", "memory.limit_in_bytes", "total_rss"}, path));
    }
    return available;
}

}  // namespace switchyard

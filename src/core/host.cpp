// The names come from gethostname() and /proc/cpuinfo.
#include "core/host.hpp"

#include <unistd.h>

#include <fstream>

namespace switchyard {

std::string host_name() {
    char name[256] = "";
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

std::string cpu_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("model name") && line.find(": ") != line.npos)
            return line.substr(line.find(": ") + 2);
    return "unknown";
}

}  // namespace switchyard

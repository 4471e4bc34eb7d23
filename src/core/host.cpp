// Resident memory comes from /proc/self/status (Linux); 0 where there is none.
#include "core/host.hpp"

#include <unistd.h>

#include <fstream>

namespace switchyard {
namespace {

double status_kib(const std::string& key) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == key) {
            double kib = 0;
            status >> kib;
            return kib;
        }
    return 0;
}

}  // namespace

std::string host_name() {
    char name[256] = "";
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

double resident_bytes() {
    return status_kib("VmRSS:") * 1024;
}

double peak_resident_bytes() {
    return status_kib("VmHWM:") * 1024;
}

void reset_peak_resident() {
    std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace switchyard

// Resident memory comes from /proc/self/status (Linux); 0 where there is none.
#include "core/units.hpp"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <string>

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

/// value with three digits and the largest unit that leaves at least 1.
std::string with_unit(double value, double base, const char* const* units, int num_units) {
    int unit = 0;
    while (unit + 1 < num_units && std::abs(value) >= base) {
        value /= base;
        ++unit;
    }
    return unit == 0 ? fmt::format("{:.0f}{}", value, units[0])
                     : fmt::format("{:.{}f}{}", value,
                                   value < 10    ? 2
                                   : value < 100 ? 1
                                                 : 0,
                                   units[unit]);
}

}  // namespace

Flops flops_per_token(const FlopsModel& model) {
    Flops flops;
    for (const LinearShape& x : model.linears) {
        const double mn = static_cast<double>(x.out) * static_cast<double>(x.in);
        const double factors = static_cast<double>(x.low_rank) * static_cast<double>(x.out + x.in);
        flops.dense += 6 * mn;
        double forward = 2 * mn, backward = 4 * mn;
        if (x.low_rank > 0) {
            // Backward: x A' and dY B (2 factors' worth together) and both gradients (2 more), merged or not.
            // Unmerged, y and d_x take one product with B and A more, and forward forms x A' itself.
            backward = 2 * mn + 4 * factors;
            if (!x.merged) {
                forward += 2 * factors;
                backward += 2 * static_cast<double>(x.low_rank) * static_cast<double>(x.in);
            }
        }
        flops.executed += forward + backward + (x.recomputed ? forward : 0);
        flops.executed +=
            x.merges_per_step * 2 * mn * static_cast<double>(x.low_rank) / model.tokens_per_step;
    }
    const double head = 6 * model.vocab_size * model.hidden_size;
    const double attention =
        4 * model.attention_width * model.seq_len;  // one layer's forward, without a mask
    flops.dense += head + 3 * attention * model.num_layers;
    flops.executed += head + attention / 2 * (3 * model.num_layers + model.recomputed_layers);
    return flops;
}

std::string bytes_text(double bytes) {
    constexpr const char* units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    return with_unit(bytes, 1024, units, 6);
}

std::string count_text(double count) {
    constexpr const char* units[] = {"", " k", " M", " G", " T", " P", " E"};
    return with_unit(count, 1000, units, 7);
}

std::string duration_text(double seconds) {
    if (!std::isfinite(seconds)) return "-";
    if (seconds < 100) return fmt::format("{:.{}f} s", seconds, seconds < 10 ? 1 : 0);
    if (seconds > 1e12) return fmt::format("{:.1e} s", seconds);
    const auto whole = static_cast<long long>(seconds);
    if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
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

// Rotary embedding by its formula: pair (i, i + D/2) of each head is rotated by position * theta^(-2 i / D).
#pragma once

#include <cmath>
#include <vector>

namespace switchyard::reference {

struct RopeSizes {
    std::size_t batch, tokens, heads, size;
};

inline std::vector<double> rope(const std::vector<double>& x, RopeSizes s, double theta,
                                double first_position, double direction) {
    std::vector<double> out(x.size());
    const std::size_t half = s.size / 2;
    for (std::size_t b = 0; b < s.batch; ++b)
        for (std::size_t t = 0; t < s.tokens; ++t)
            for (std::size_t h = 0; h < s.heads; ++h)
                for (std::size_t i = 0; i < half; ++i) {
                    const double frequency =
                        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(s.size));
                    const double angle = direction * (first_position + static_cast<double>(t)) * frequency;
                    const std::size_t low = ((b * s.tokens + t) * s.heads + h) * s.size + i,
                                      high = low + half;
                    out[low] = x[low] * std::cos(angle) - x[high] * std::sin(angle);
                    out[high] = x[high] * std::cos(angle) + x[low] * std::sin(angle);
                }
    return out;
}

}  // namespace switchyard::reference

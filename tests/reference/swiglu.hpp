// SwiGLU and its derivatives by their formulas.
#pragma once

#include <cmath>
#include <vector>

namespace switchyard::reference {

inline double silu(double g) {
    return g / (1 + std::exp(-g));
}

/// silu' as a difference of logistic functions: (1 + e^-g + g e^-g) / (1 + e^-g)^2.
inline double silu_slope(double g) {
    const double e = std::exp(-g);
    return (1 + e + g * e) / ((1 + e) * (1 + e));
}

}  // namespace switchyard::reference

// RMSNorm by its formula, row by row.
#pragma once

#include <cmath>
#include <vector>

namespace switchyard::reference {

using Values = std::vector<double>;

struct Norm {
    Values h, rstd;
};

inline Norm rms_norm(const Values& x, const Values& weight, double eps) {
    const std::size_t width = weight.size(), rows = width == 0 ? 0 : x.size() / width;
    Norm out{Values(x.size()), Values(rows)};
    for (std::size_t i = 0; i < rows; ++i) {
        double squares = 0;
        for (std::size_t j = 0; j < width; ++j) squares += x[i * width + j] * x[i * width + j];
        out.rstd[i] = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
        for (std::size_t j = 0; j < width; ++j)
            out.h[i * width + j] = x[i * width + j] * out.rstd[i] * weight[j];
    }
    return out;
}

struct NormGradient {
    Values x, weight;
};

/// d h_k / d x_j = rstd weight_k (delta_jk - x_j x_k rstd^2 / C), summed over k.
inline NormGradient rms_norm_gradient(const Values& d_h, const Values& x, const Values& weight,
                                      const Values& rstd) {
    const std::size_t width = weight.size(), rows = rstd.size();
    NormGradient out{Values(x.size()), Values(width)};
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < width; ++j) {
            const std::size_t at = i * width + j;
            for (std::size_t k = 0; k < width; ++k) {
                const double same = j == k ? 1 : 0;
                out.x[at] +=
                    d_h[i * width + k] * weight[k] * rstd[i] *
                    (same - x[at] * x[i * width + k] * rstd[i] * rstd[i] / static_cast<double>(width));
            }
            out.weight[j] += d_h[at] * x[at] * rstd[i];
        }
    return out;
}

}  // namespace switchyard::reference

// Softmax cross-entropy over unsplit, unpadded logits (n, V).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace switchyard::reference {

struct CrossEntropy {
    double loss = 0;  // sum over tokens with a target
    std::vector<double> lse, d_logits;
};

inline CrossEntropy cross_entropy(const std::vector<double>& logits, const std::vector<std::int32_t>& targets,
                                  double scale) {
    const std::size_t n = targets.size(), width = n == 0 ? 0 : logits.size() / n;
    CrossEntropy out;
    out.d_logits.resize(logits.size());
    for (std::size_t i = 0; i < n; ++i) {
        const double* row = logits.data() + i * width;
        const double maximum = *std::max_element(row, row + width);
        double sum = 0;
        for (std::size_t j = 0; j < width; ++j) sum += std::exp(row[j] - maximum);
        out.lse.push_back(maximum + std::log(sum));
        if (targets[i] < 0) continue;
        const auto target = static_cast<std::size_t>(targets[i]);
        out.loss += out.lse[i] - row[target];
        for (std::size_t j = 0; j < width; ++j)
            out.d_logits[i * width + j] = scale * (std::exp(row[j] - out.lse[i]) - (j == target ? 1 : 0));
    }
    return out;
}

}  // namespace switchyard::reference

// A matrix product, element by element in order of k, on matrices with any two strides.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::reference {

/// Element (i, j) is values[i * row + j * col].
struct Matrix {
    const std::vector<double>& values;
    std::int64_t row, col;
    double at(std::int64_t i, std::int64_t j) const {
        return values[static_cast<std::size_t>(i * row + j * col)];
    }
};

struct ProductSizes {
    std::int64_t m, n, k;
};

/// alpha a (m, k) b (k, n), plus c where it is given: (m, n) with rows `c_row` apart.
inline std::vector<double> product(ProductSizes s, double alpha, const Matrix& a, const Matrix& b,
                                   const std::vector<double>* c = nullptr, std::int64_t c_row = 0) {
    std::vector<double> out;
    for (std::int64_t i = 0; i < s.m; ++i)
        for (std::int64_t j = 0; j < s.n; ++j) {
            double sum = 0;
            for (std::int64_t k = 0; k < s.k; ++k) sum += a.at(i, k) * b.at(k, j);
            out.push_back(alpha * sum + (c ? (*c)[static_cast<std::size_t>(i * c_row + j)] : 0));
        }
    return out;
}

}  // namespace switchyard::reference

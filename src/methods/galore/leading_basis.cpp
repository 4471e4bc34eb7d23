// Vectors are rows here; a basis has them as columns.
#include "methods/galore/leading_basis.hpp"

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "methods/galore/symmetric_eigen.hpp"

namespace switchyard {
namespace {

void fix_sign(double* x, std::int64_t n) {
    double largest = 0;
    for (std::int64_t i = 0; i < n; ++i)
        if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
    if (largest < 0)
        for (std::int64_t i = 0; i < n; ++i) x[i] = -x[i];
}

/// x <- what is left of it outside the `count` orthonormal rows of `basis`; returns its squared length.
double leave_outside(double* x, const double* basis, std::int64_t count, std::int64_t n) {
    double square = 0;
    for (int pass = 0; pass < 2; ++pass) {
        for (std::int64_t k = 0; k < count; ++k) {
            const double* b = basis + k * n;
            double dot = 0;
            for (std::int64_t i = 0; i < n; ++i) dot += b[i] * x[i];
            for (std::int64_t i = 0; i < n; ++i) x[i] -= dot * b[i];
        }
        square = 0;
        for (std::int64_t i = 0; i < n; ++i) square += x[i] * x[i];
    }
    return square;
}

}  // namespace

/// Some old column is always left: the squares of what is left of r orthonormal columns outside count < r
/// others sum to r - count at least, and those that were passed over had less than 1 / (4 r) each.
std::int64_t leading_basis(std::span<double> gram, std::int64_t stride, std::int64_t n, std::int64_t r,
                           std::span<double> basis) {
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j)
            if (!std::isfinite(gram[i * stride + j])) return r;
    LeadingEigen eigen = leading_eigen(gram, stride, n, r);
    const double smallest = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * eigen.values[0];
    std::int64_t count = 0;
    while (count < r && eigen.values[count] > smallest) ++count;
    if (count == 0) return r;
    const std::int64_t kept = r - count;
    for (std::int64_t k = 0; k < count; ++k) fix_sign(eigen.vectors.data() + k * n, n);
    for (std::int64_t old = 0; count < r && old < r; ++old) {
        double* x = eigen.vectors.data() + count * n;
        for (std::int64_t i = 0; i < n; ++i) x[i] = basis[i * r + old];
        const double square = leave_outside(x, eigen.vectors.data(), count, n);
        if (square < 0.25 / static_cast<double>(r)) continue;
        const double length = std::sqrt(square);
        for (std::int64_t i = 0; i < n; ++i) x[i] /= length;
        ++count;
    }
    internal_check(count == r, "{} of {} columns are left of an orthonormal basis", count, r);
    for (std::int64_t k = 0; k < r; ++k)
        for (std::int64_t i = 0; i < n; ++i) basis[i * r + k] = eigen.vectors[k * n + i];
    return kept;
}

}  // namespace switchyard

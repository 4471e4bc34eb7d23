// Eigenvectors of dense symmetric matrices, on the host in f64. The bits do not depend on the number of
// threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

/// The largest eigenvalues of a symmetric matrix, descending, and their eigenvectors.
struct LeadingEigen {
    std::vector<double> values;   // (r)
    std::vector<double> vectors;  // (r, n): orthonormal rows
};

/// matrix: n rows of n numbers, each `stride` after the one before; its content is lost. Householder's
/// tridiagonal form and implicit QR steps with Wilkinson's shift (Golub and Van Loan, Matrix Computations,
/// sections 8.3.1 to 8.3.3): errors are about n rounding units of the largest eigenvalue, however the others
/// lie. Every number must be finite.
LeadingEigen leading_eigen(std::span<double> matrix, std::int64_t stride, std::int64_t n, std::int64_t r);

}  // namespace switchyard

// Eigenvectors of dense matrices against Jacobi's rotations, however their eigenvalues lie, and bases of
// gradients that have too few singular vectors, or none.
// BACK ENDS: cpu. Numbers of the host alone.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/rng.hpp"
#include "methods/galore/leading_basis.hpp"
#include "methods/galore/symmetric_eigen.hpp"
#include "reference/galore.hpp"

namespace switchyard {
namespace {

using Values = std::vector<double>;

Values normals(const std::string& name, std::int64_t count) {
    Values values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(normal(stream_key(5, name), i));
    return values;
}

/// G' G of G (m, n).
Values gram_of(const Values& g, std::int64_t m, std::int64_t n) {
    Values gram(n * n, 0.0);
    for (std::int64_t k = 0; k < m; ++k)
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j) gram[i * n + j] += g[k * n + i] * g[k * n + j];
    return gram;
}

/// Q diag(values) Q' of an orthogonal Q.
Values with_eigenvalues(const Values& values) {
    const auto n = static_cast<std::int64_t>(values.size());
    const Values q = reference::gram_schmidt(normals("q", n * n), static_cast<int>(n), static_cast<int>(n));
    Values a(n * n, 0.0);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t k = 0; k < n; ++k) a[i * n + j] += values[k] * q[i * n + k] * q[j * n + k];
    return a;
}

/// max |Q' Q - 1| of columns (n, r).
double beside_orthonormal(const Values& q, std::int64_t n, std::int64_t r) {
    double worst = 0;
    for (std::int64_t a = 0; a < r; ++a)
        for (std::int64_t b = 0; b < r; ++b) {
            double dot = a == b ? -1 : 0;
            for (std::int64_t i = 0; i < n; ++i) dot += q[i * r + a] * q[i * r + b];
            worst = std::max(worst, std::fabs(dot));
        }
    return worst;
}

/// Orthonormal, A x = value x, values descending: both to n rounding units of the largest.
void expect_eigenvectors(const Values& a, std::int64_t n, std::int64_t r) {
    Values copy = a;
    const LeadingEigen eigen = leading_eigen(copy, n, n, r);
    double largest = 1e-300;
    for (double x : a) largest = std::max(largest, std::fabs(x));
    const double tolerance = 30 * static_cast<double>(n) * 0x1p-53;
    for (std::int64_t k = 0; k < r; ++k) {
        const double* x = eigen.vectors.data() + k * n;
        if (k > 0) {
            EXPECT_LE(eigen.values[k], eigen.values[k - 1]);
        }
        for (std::int64_t i = 0; i < n; ++i) {
            double sum = -eigen.values[k] * x[i];
            for (std::int64_t j = 0; j < n; ++j) sum += a[i * n + j] * x[j];
            ASSERT_LE(std::fabs(sum), tolerance * largest) << k << ", " << i;
        }
        for (std::int64_t other = 0; other <= k; ++other) {
            double dot = other == k ? -1 : 0;
            for (std::int64_t i = 0; i < n; ++i) dot += x[i] * eigen.vectors[other * n + i];
            ASSERT_LE(std::fabs(dot), tolerance) << k << ", " << other;
        }
    }
}

TEST(SymmetricEigenTest, VectorsAreOrthonormalAndSolveHoweverEigenvaluesLie) {
    for (const std::int64_t n : {1, 2, 3, 5, 17, 40}) {
        SCOPED_TRACE(n);
        expect_eigenvectors(gram_of(normals("g", 2 * n * n), 2 * n, n), n, n);
        Values equal(n, 3.0), pairs(n), graded(n), none(n, 0.0), signs(n);
        for (std::int64_t i = 0; i < n; ++i) {
            pairs[i] = static_cast<double>(i / 2);
            graded[i] = std::pow(10.0, -0.5 * static_cast<double>(i));
            signs[i] = i % 2 == 0 ? 1 : -1;
        }
        for (const Values& values : {equal, pairs, graded, none, signs}) {
            expect_eigenvectors(with_eigenvalues(values), n, n);
            Values diagonal(n * n, 0.0);
            for (std::int64_t i = 0; i < n; ++i) diagonal[i * n + i] = values[i];
            expect_eigenvectors(diagonal, n, n);
        }
        Values clustered = equal;
        for (std::int64_t i = 0; i < n; ++i) clustered[i] += 1e-14 * static_cast<double>(i);
        expect_eigenvectors(with_eigenvalues(clustered), n, n);
        for (const double size : {1e-280, 1e280}) {
            Values scaled = gram_of(normals("g", 2 * n * n), 2 * n, n);
            for (double& x : scaled) x *= size;
            expect_eigenvectors(scaled, n, n);
        }
    }
}

TEST(SymmetricEigenTest, TheNumberOfThreadsChangesNoBit) {
    constexpr std::int64_t n = 530, r = 20;  // large enough for several threads
    Values a(n * n);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j)
            a[i * n + j] = a[j * n + i] = normal(stream_key(5, "a"), i * n + j);
    const int threads = omp_get_max_threads();
    std::vector<LeadingEigen> results;
    for (const int count : {1, 3}) {
        omp_set_num_threads(count);
        Values copy = a;
        results.push_back(leading_eigen(copy, n, n, r));
    }
    omp_set_num_threads(threads);
    EXPECT_EQ(results[0].values, results[1].values);
    EXPECT_EQ(results[0].vectors, results[1].vectors);
}

/// Rows of the Gram matrix lie further apart than they are long, as where a dimension is padded.
TEST(LeadingBasisTest, AreTheLeadingSingularVectorsWithTheirLargestElementPositive) {
    constexpr std::int64_t m = 30, n = 14, r = 6, stride = 16;
    const Values gram = gram_of(normals("g", m * n), m, n);
    Values apart(stride * stride, NAN), basis(n * r, NAN);
    for (std::int64_t i = 0; i < n; ++i) std::copy_n(gram.begin() + i * n, n, apart.begin() + i * stride);
    EXPECT_EQ(leading_basis(apart, stride, n, r, basis), 0);
    const Values expected = reference::leading_eigenvectors(gram, n, r);
    for (std::int64_t i = 0; i < n * r; ++i) EXPECT_NEAR(basis[i], expected[i], 1e-12) << i;
    // Of equal elements the first is positive.
    Values two{2, -1, -1, 2}, ties(4, 0.0);
    EXPECT_EQ(leading_basis(two, 2, 2, 2, ties), 0);
    EXPECT_NEAR(ties[0], std::sqrt(0.5), 1e-15);
    EXPECT_NEAR(ties[2], -std::sqrt(0.5), 1e-15);
}

/// A gradient of rank k: k vectors of its range, then the old basis's, outside the range.
TEST(LeadingBasisTest, OldColumnsServeWhereAGradientHasTooFew) {
    constexpr std::int64_t n = 12, r = 7;
    const Values old = reference::gram_schmidt(normals("old", n * r), n, r);
    for (const std::int64_t rank : {1, 3, 6}) {
        const Values g = normals("few", rank * n);
        Values gram = gram_of(g, rank, n), basis = old;
        EXPECT_EQ(leading_basis(gram, n, n, r, basis), r - rank);
        EXPECT_LT(beside_orthonormal(basis, n, r), 1e-14);
        for (std::int64_t row = 0; row < rank; ++row) {  // G Q Q' = G with the first k columns alone
            for (std::int64_t j = 0; j < n; ++j) {
                double sum = 0;
                for (std::int64_t k = 0; k < rank; ++k) {
                    double dot = 0;
                    for (std::int64_t i = 0; i < n; ++i) dot += g[row * n + i] * basis[i * r + k];
                    sum += dot * basis[j * r + k];
                }
                EXPECT_NEAR(sum, g[row * n + j], 1e-13);
            }
        }
        // The first of the others is the first old column without its part in the range.
        Values left(n);
        double square = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            left[j] = old[j * r];
            for (std::int64_t k = 0; k < rank; ++k) {
                double dot = 0;
                for (std::int64_t i = 0; i < n; ++i) dot += old[i * r] * basis[i * r + k];
                left[j] -= dot * basis[j * r + k];
            }
            square += left[j] * left[j];
        }
        for (std::int64_t j = 0; j < n; ++j)
            EXPECT_NEAR(basis[j * r + rank], left[j] / std::sqrt(square), 1e-13);
    }
    // Here the first old columns are in the range, and the later ones serve.
    Values gram(n * n, 0.0), basis(n * r, 0.0);
    for (std::int64_t i = 0; i < 3; ++i) gram[i * n + i] = static_cast<double>(5 - i);
    for (std::int64_t k = 0; k < r; ++k) basis[k * r + k] = 1;
    const Values same = basis;
    EXPECT_EQ(leading_basis(gram, n, n, r, basis), r - 3);
    for (std::int64_t i = 0; i < n * r; ++i) EXPECT_NEAR(basis[i], same[i], 1e-15);
}

TEST(LeadingBasisTest, NothingToSolveLeavesABasisAsItIs) {
    constexpr std::int64_t n = 5, r = 3;
    const Values old = reference::gram_schmidt(normals("old", n * r), n, r);
    Values zero(n * n, 0.0);
    for (const double bad : {0.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
        Values gram = bad == 0 ? zero : gram_of(normals("g", 9 * n), 9, n), basis = old;
        if (bad != 0) gram[n * n - 1] = bad;
        EXPECT_EQ(leading_basis(gram, n, n, r, basis), r);
        EXPECT_EQ(basis, old);
    }
}

}  // namespace
}  // namespace switchyard

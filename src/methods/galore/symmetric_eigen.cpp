// Work on whole matrices goes by blocks of columns or of vectors, which threads share; each number is formed
// by the same operations in the same order whatever their count.
#include "methods/galore/symmetric_eigen.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "core/shared_loop.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t block = 64;               // columns or rows that one thread works on
constexpr std::int64_t worth_threads = 1 << 18;  // numbers of a matrix

/// T = H A H', tridiagonal. H_k = 1 - tau_k v_k v_k' acts on elements k + 1 ... n - 1; v_k replaces those of
/// row k of the matrix.
struct Tridiagonal {
    std::vector<double> diagonal, beside, tau;
};

/// v of the reflection that brings x (count) to (beside, 0, 0, ...); returns tau.
double reflection(double* x, std::int64_t count, double& beside) {
    double rest = 0;
    for (std::int64_t i = 1; i < count; ++i) rest += x[i] * x[i];
    beside = x[0];
    if (rest == 0) return 0;
    const double length = std::sqrt(x[0] * x[0] + rest);
    beside = x[0] > 0 ? -length : length;
    x[0] -= beside;
    return 2 / (x[0] * x[0] + rest);
}

/// Column by column: A <- A - v w' - w v' of the column before and p = A u of this one in one pass.
Tridiagonal tridiagonal(double* a, std::int64_t stride, std::int64_t n) {
    Tridiagonal t{std::vector<double>(n), std::vector<double>(n, 0.0), std::vector<double>(n, 0.0)};
    std::vector<double> v(n, 0.0), w(n, 0.0), u(n, 0.0), p(n, 0.0);  // v, w: of the column before
    for (std::int64_t k = 0; k < n; ++k) {
        double* row = a + k * stride;
        for (std::int64_t j = k; j < n; ++j) row[j] -= v[k] * w[j] + w[k] * v[j];
        t.diagonal[k] = row[k];
        if (k + 1 == n) break;
        t.tau[k] = reflection(row + k + 1, n - k - 1, t.beside[k]);
        std::copy(row + k + 1, row + n, u.begin() + k + 1);
        const std::int64_t first = k + 1, blocks = (n - first + block - 1) / block;
        for_shared(blocks, (n - first) * (n - first) > worth_threads, [&](std::int64_t b) {
            const std::int64_t begin = first + b * block, end = std::min(n, begin + block);
            std::fill(p.begin() + begin, p.begin() + end, 0.0);
            for (std::int64_t i = first; i < n; ++i) {
                double* to = a + i * stride;
                const double vi = v[i], wi = w[i], ui = u[i];
                for (std::int64_t j = begin; j < end; ++j) {
                    to[j] -= vi * w[j] + wi * v[j];
                    p[j] += ui * to[j];
                }
            }
        });
        double dot = 0;
        for (std::int64_t i = first; i < n; ++i) dot += p[i] * u[i];
        const double tau = t.tau[k], along = tau * tau * dot / 2;
        for (std::int64_t i = first; i < n; ++i) {
            v[i] = u[i];
            w[i] = tau * p[i] - along * u[i];
        }
    }
    return t;
}

/// Rows i and i + 1 of a matrix <- (c x + s y, c y - s x).
struct Rotation {
    std::int64_t i;
    double c, s;
};

/// Rotations are applied to the rows of a square matrix, many at a time.
class Rotated {
  public:
    explicit Rotated(std::int64_t n) : n_(n), rows_(n * n, 0.0) {
        for (std::int64_t i = 0; i < n; ++i) rows_[i * n + i] = 1;
    }
    void add(const Rotation& rotation) {
        waiting_.push_back(rotation);
        if (static_cast<std::int64_t>(waiting_.size()) >= 32 * n_) apply();
    }
    void apply() {
        const std::int64_t blocks = (n_ + block - 1) / block;
        for_shared(blocks, n_ * n_ > worth_threads, [&](std::int64_t b) {
            const std::int64_t begin = b * block, end = std::min(n_, begin + block);
            for (const Rotation& by : waiting_) {
                double *x = rows_.data() + by.i * n_, *y = x + n_;
                for (std::int64_t j = begin; j < end; ++j) {
                    const double upper = x[j], lower = y[j];
                    x[j] = by.c * upper + by.s * lower;
                    y[j] = by.c * lower - by.s * upper;
                }
            }
        });
        waiting_.clear();
    }
    const double* row(std::int64_t i) const { return rows_.data() + i * n_; }

  private:
    std::int64_t n_;
    std::vector<double> rows_;
    std::vector<Rotation> waiting_;
};

/// One step on the unreduced block low ... high.
void qr_step(std::vector<double>& d, std::vector<double>& e, std::int64_t low, std::int64_t high,
             Rotated& rotated) {
    const double half = (d[high - 1] - d[high]) / 2, last = e[high - 1],
                 root = std::sqrt(half * half + last * last),
                 shift = d[high] - last * last / (half + (half < 0 ? -root : root));
    double x = d[low] - shift, z = e[low];
    for (std::int64_t k = low; k < high; ++k) {
        const double length = std::sqrt(x * x + z * z), c = length > 0 ? x / length : 1,
                     s = length > 0 ? z / length : 0;
        if (k > low) e[k - 1] = length;
        const double a = d[k], b = e[k], g = d[k + 1], twice = 2 * c * s * b;
        d[k] = c * c * a + twice + s * s * g;
        d[k + 1] = s * s * a - twice + c * c * g;
        e[k] = c * s * (g - a) + (c * c - s * s) * b;
        if (k + 1 < high) {
            x = e[k];
            z = s * e[k + 1];
            e[k + 1] *= c;
        }
        rotated.add({k, c, s});
    }
}

/// The diagonal becomes the eigenvalues; returns the eigenvectors of T as rows.
Rotated diagonalise(Tridiagonal& t, std::int64_t n) {
    Rotated rotated(n);
    std::vector<double>&d = t.diagonal, &e = t.beside;
    constexpr double eps = std::numeric_limits<double>::epsilon() / 2;
    const auto negligible = [&](std::int64_t k) {
        return std::fabs(e[k]) <= eps * (std::fabs(d[k]) + std::fabs(d[k + 1])) || std::fabs(e[k]) < 1e-40;
    };
    std::int64_t high = n - 1;
    for (std::int64_t steps = 0; high > 0;) {
        if (negligible(high - 1)) {
            e[--high] = 0;
            continue;
        }
        std::int64_t low = high - 1;
        while (low > 0 && !negligible(low - 1)) --low;
        internal_check(++steps <= 60 * n, "QR steps on {} rows do not converge", n);
        qr_step(d, e, low, high, rotated);
    }
    rotated.apply();
    return rotated;
}

}  // namespace

LeadingEigen leading_eigen(std::span<double> matrix, std::int64_t stride, std::int64_t n, std::int64_t r) {
    double largest = 0;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j) largest = std::max(largest, std::fabs(matrix[i * stride + j]));
    // A power of 2, so that scaling is exact.
    const double scale = largest > 0 ? std::ldexp(1.0, -std::ilogb(largest)) : 1;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j) matrix[i * stride + j] *= scale;
    Tridiagonal t = tridiagonal(matrix.data(), stride, n);
    const Rotated rotated = diagonalise(t, n);
    std::vector<std::int64_t> order(n);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](auto i, auto j) { return t.diagonal[i] > t.diagonal[j]; });
    LeadingEigen result{std::vector<double>(r), std::vector<double>(r * n)};
    constexpr std::int64_t together = 8;  // vectors that share a reading of the reflections
    for_in_turns((r + together - 1) / together, n * r > worth_threads, [&](std::int64_t group) {
        const std::int64_t first = group * together, last = std::min(r, first + together);
        for (std::int64_t i = first; i < last; ++i) {
            result.values[i] = t.diagonal[order[i]] / scale;
            std::copy_n(rotated.row(order[i]), n, result.vectors.begin() + i * n);
        }
        for (std::int64_t k = n - 2; k >= 0; --k) {
            const double* v = matrix.data() + k * stride;
            for (std::int64_t i = first; i < last; ++i) {
                double *x = result.vectors.data() + i * n, dot = 0;
#pragma omp simd reduction(+ : dot)
                for (std::int64_t j = k + 1; j < n; ++j) dot += v[j] * x[j];
                dot *= t.tau[k];
                for (std::int64_t j = k + 1; j < n; ++j) x[j] -= dot * v[j];
            }
        }
    });
    return result;
}

}  // namespace switchyard

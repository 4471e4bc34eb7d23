// A thread factors a matrix, or solves a few rows at a time, which lie in its scratch element by element so
// that the innermost loop runs over rows. Both triangles are there, so every access is along a row of U or
// U'.
#include "kernels/cholesky.hpp"

#include <cmath>

#include "core/calls.hpp"
#include "core/cpu/thread_scratch.hpp"
#include "core/shared_loop.hpp"
#include "kernels/checks/cholesky.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

/// Returns the defect.
std::int64_t factor_matrix(double* gram, std::int64_t r, double damping) {
    for (std::int64_t i = 0; i < r; ++i) gram[i * r + i] += damping;
    for (std::int64_t k = 0; k < r; ++k) {
        double* row = gram + k * r;
        if (!(row[k] > 0) || !std::isfinite(row[k])) return k + 1;
        const double pivot = std::sqrt(row[k]);
        for (std::int64_t j = k; j < r; ++j) row[j] /= pivot;
        for (std::int64_t i = k + 1; i < r; ++i) {
            const double factor = row[i];
            double* below = gram + i * r;
#pragma omp simd
            for (std::int64_t j = i; j < r; ++j) below[j] -= factor * row[j];
        }
    }
    for (std::int64_t i = 0; i < r; ++i)
        for (std::int64_t j = 0; j < i; ++j) gram[i * r + j] = gram[j * r + i];
    return 0;
}

constexpr std::int64_t lanes = 16;

/// x (r, lanes) <- (U' U)^-1 x.
void solve_tile(const double* factor, std::int64_t r, double* x) {
    for (std::int64_t k = 0; k < r; ++k) {  // U' y = x, by rows of U'
        double sum[lanes] = {};
        for (std::int64_t j = 0; j < k; ++j)
#pragma omp simd
            for (std::int64_t i = 0; i < lanes; ++i) sum[i] += factor[k * r + j] * x[j * lanes + i];
        for (std::int64_t i = 0; i < lanes; ++i)
            x[k * lanes + i] = (x[k * lanes + i] - sum[i]) / factor[k * r + k];
    }
    for (std::int64_t k = r - 1; k >= 0; --k) {  // U x = y
        double sum[lanes] = {};
        for (std::int64_t j = k + 1; j < r; ++j)
#pragma omp simd
            for (std::int64_t i = 0; i < lanes; ++i) sum[i] += factor[k * r + j] * x[j * lanes + i];
        for (std::int64_t i = 0; i < lanes; ++i)
            x[k * lanes + i] = (x[k * lanes + i] - sum[i]) / factor[k * r + k];
    }
}

template <class T>
void solve_some(const DividedRows& item, std::int64_t begin, std::int64_t count, std::int64_t r, double* x) {
    const RowPlaces places(item.rows);
    for (std::int64_t i = 0; i < lanes; ++i) {
        const T* row = i < count ? places.at<const T>(begin + i, 0) : nullptr;
        for (std::int64_t j = 0; j < r; ++j) x[j * lanes + i] = row ? static_cast<double>(load(row[j])) : 0;
    }
    solve_tile(item.factor.data<double>(), r, x);
    for (std::int64_t i = 0; i < count; ++i) {
        T* row = places.at<T>(begin + i, 0);
        for (std::int64_t j = 0; j < r; ++j) row[j] = convert<T>(x[j * lanes + i]);
    }
}

}  // namespace

void cholesky(Tensor grams, double damping, Tensor defects) {
    count_kernel(__func__);
    check_grams(grams, defects);
    const std::int64_t r = grams.dim(1);
    for_in_turns(grams.dim(0), grams.size() > parallel_elements, [&](std::int64_t i) {
        defects.data<double>()[i] =
            static_cast<double>(factor_matrix(grams.data<double>() + i * r * r, r, damping));
    });
}

void solve_rows(std::span<const DividedRows> items) {
    count_kernel(__func__);
    const std::int64_t r = check_divided(items);
    std::vector<std::int64_t> first_tile{0};
    for (const DividedRows& item : items) {
        check_entries(item.rows);
        first_tile.push_back(first_tile.back() + (item.rows.rows.count + lanes - 1) / lanes);
    }
    const std::int64_t tiles = first_tile.back();
    const auto bytes = static_cast<std::size_t>(r * lanes) * sizeof(double);
    reserve_thread_scratch(ScratchUse::widened, bytes);
    for_shared(tiles, true, [&](std::int64_t tile) {
        const auto next = std::upper_bound(first_tile.begin(), first_tile.end(), tile);
        const auto index = static_cast<std::size_t>(next - first_tile.begin() - 1);
        const DividedRows& item = items[index];
        const std::int64_t begin = (tile - first_tile[index]) * lanes;
        auto* x = reinterpret_cast<double*>(thread_scratch(ScratchUse::widened, bytes));
        dispatch(item.rows.matrix.dtype(), [&]<class T>() {
            solve_some<T>(item, begin, std::min(lanes, item.rows.rows.count - begin), r, x);
        });
    });
}

}  // namespace switchyard::kernels

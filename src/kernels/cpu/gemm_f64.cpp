// The f64 product: plain loops over tiles that the compiler keeps in registers. Every element is summed in
// order of k, so results do not depend on the number of threads.
#include <algorithm>

#include "core/cpu/thread_scratch.hpp"
#include "core/shared_loop.hpp"
#include "kernels/cpu/gemm.hpp"

namespace switchyard::kernels {
namespace {

constexpr std::int64_t tile_rows = 6, tile_cols = 16;

/// sums (tile_rows, tile_cols) = a's rows times a packed panel (k, tile_cols). ROWS <= tile_rows.
template <int ROWS>
void multiply_tile(const Gemm& g, const double* a, const double* panel, double (*sums)[tile_cols]) {
    double local[ROWS][tile_cols] = {};
    for (std::int64_t k = 0; k < g.k; ++k) {
        for (int i = 0; i < ROWS; ++i) {
            const double x = a[i * g.a_row + k * g.a_col];
#pragma omp simd
            for (int j = 0; j < tile_cols; ++j) local[i][j] += x * panel[k * tile_cols + j];
        }
    }
    for (int i = 0; i < ROWS; ++i) std::copy_n(local[i], tile_cols, sums[i]);
}

void multiply_panel(const Gemm& g, double alpha, const double* a, const double* panel, std::int64_t col,
                    double* c) {
    const std::int64_t cols = std::min(tile_cols, g.n - col);
    double sums[tile_rows][tile_cols];
    for (std::int64_t row = 0; row < g.m; row += tile_rows) {
        const std::int64_t rows = std::min(tile_rows, g.m - row);
        const double* a_tile = a + row * g.a_row;
        if (rows == tile_rows)
            multiply_tile<tile_rows>(g, a_tile, panel, sums);
        else
            for (std::int64_t i = 0; i < rows; ++i)
                multiply_tile<1>(g, a_tile + i * g.a_row, panel, sums + i);
        for (std::int64_t i = 0; i < rows; ++i) {
            double* out = c + (row + i) * g.c_row + col;
            for (std::int64_t j = 0; j < cols; ++j)
                out[j] = alpha * sums[i][j] + (g.accumulate ? out[j] : 0.0);
        }
    }
}

}  // namespace

void gemm_f64(const Gemm& g, double alpha, const double* a, const double* b, double* c) {
    const std::int64_t panels = (g.n + tile_cols - 1) / tile_cols;
    const auto panel_bytes = static_cast<std::size_t>(g.k * tile_cols) * sizeof(double);
    reserve_thread_scratch(ScratchUse::product, panel_bytes);
    for_shared(panels, g.m * g.n * g.k > 32768, [&](std::int64_t p) {
        const std::int64_t col = p * tile_cols, cols = std::min(tile_cols, g.n - col);
        auto* panel = reinterpret_cast<double*>(thread_scratch(ScratchUse::product, panel_bytes));
        for (std::int64_t k = 0; k < g.k; ++k)
            for (std::int64_t j = 0; j < tile_cols; ++j)
                panel[k * tile_cols + j] = j < cols ? b[k * g.b_row + (col + j) * g.b_col] : 0.0;
        multiply_panel(g, alpha, a, panel, col, c);
    });
}

}  // namespace switchyard::kernels

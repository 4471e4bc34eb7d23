// A thread draws one Philox block, which gives the elements 2p and 2p + 1 of the stream. The numbers are
// those of core/rng.hpp, bit for bit, so this file is compiled without contraction of a * b + c.
#include <utility>

#include "core/calls.hpp"
#include "core/rng.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/random.hpp"

namespace switchyard::kernels {
namespace {

struct Normal {
    std::uint64_t key;
    double std;
    __device__ std::pair<double, double> operator()(std::uint64_t pair) const {
        const std::pair<double, double> drawn = normal_pair(key, pair);
        return {std * drawn.first, std * drawn.second};
    }
};

struct Uniform {
    std::uint64_t key;
    double bound;
    __device__ std::pair<double, double> operator()(std::uint64_t pair) const {
        const std::pair<double, double> drawn = uniform_pair(key, pair);
        return {bound * (2 * drawn.first - 1), bound * (2 * drawn.second - 1)};
    }
};

/// x (rows, cols). A row of any parity lies within cols / 2 + 1 pairs.
template <class T, class Draw>
__global__ void __launch_bounds__(256)
    fill(T* x, std::int64_t rows, std::int64_t cols, Region region, Draw draw) {
    const std::int64_t pairs = cols / 2 + 1;
    for (std::int64_t unit = first_unit(); unit < rows * pairs; unit += unit_step()) {
        const std::int64_t row = unit / pairs;
        const std::int64_t first = (region.row0 + row) * region.global_cols + region.col0;
        const std::int64_t column = 2 * (unit % pairs) - first % 2;  // of the pair's first element
        std::pair<double, double> drawn;
        if (row < region.valid_rows && column < region.valid_cols)
            drawn = draw(static_cast<std::uint64_t>(first + column) / 2);
        const auto put = [&](std::int64_t j, double value) {
            const bool valid = row < region.valid_rows && j < region.valid_cols;
            if (j >= 0 && j < cols) x[row * cols + j] = narrow<T>(static_cast<Wide<T>>(valid ? value : 0));
        };
        put(column, drawn.first);
        put(column + 1, drawn.second);
    }
}

/// x (rows, cols) += scale row_scale[i] z for the valid elements.
template <class T>
__global__ void __launch_bounds__(256) add(T* x, std::int64_t rows, std::int64_t cols, Region region,
                                           std::uint64_t key, double scale, const Wide<T>* row_scale) {
    const std::int64_t pairs = region.valid_cols / 2 + 1;
    for (std::int64_t unit = first_unit(); unit < rows * pairs; unit += unit_step()) {
        const std::int64_t row = unit / pairs;
        const std::int64_t first = (region.row0 + row) * region.global_cols + region.col0;
        const std::int64_t column = 2 * (unit % pairs) - first % 2;  // of the pair's first element
        if (column >= region.valid_cols) continue;
        const std::pair<double, double> drawn =
            normal_pair(key, static_cast<std::uint64_t>(first + column) / 2);
        const double std = scale * static_cast<double>(row_scale[row]);
        const auto put = [&](std::int64_t j, double noise) {
            if (j < 0 || j >= region.valid_cols) return;
            T& to = x[row * cols + j];
            to = narrow<T>(wide(to) + static_cast<Wide<T>>(noise));
        };
        put(column, std * drawn.first);
        put(column + 1, std * drawn.second);
    }
}

template <class Draw>
void fill_region(Tensor x, const Region& region, const Draw& draw) {
    check_matrix("tensor of initial values", x);
    if (x.empty()) return;
    const std::int64_t rows = x.dim(0), cols = x.dim(1);
    dispatch(x.dtype(), [&]<class T>() {
        cuda::launch(grid_for(rows * (cols / 2 + 1)), fill<T, Draw>, x.data<T>(), rows, cols, region, draw);
    });
}

}  // namespace

void fill_normal(Tensor x, const Region& region, std::uint64_t key, double std) {
    count_kernel(__func__);
    fill_region(x, region, Normal{key, std});
}

void fill_uniform(Tensor x, const Region& region, std::uint64_t key, double bound) {
    count_kernel(__func__);
    fill_region(x, region, Uniform{key, bound});
}

void add_normal(Tensor x, const Region& region, std::uint64_t key, double scale, Tensor row_scale) {
    count_kernel(__func__);
    check("row scale", row_scale, accumulate_type(x.dtype()), {x.dim(0)});
    Region valid = region;
    valid.valid_cols = std::min(region.valid_cols, x.dim(1));
    const std::int64_t rows = std::min(region.valid_rows, x.dim(0));
    if (rows == 0 || valid.valid_cols == 0) return;
    dispatch(x.dtype(), [&]<class T>() {
        cuda::launch(grid_for(rows * (valid.valid_cols / 2 + 1)), add<T>, x.data<T>(), rows, x.dim(1), valid,
                     key, scale, static_cast<const Wide<T>*>(row_scale.data<Wide<T>>()));
    });
}

}  // namespace switchyard::kernels

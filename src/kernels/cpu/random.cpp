// Element (i, j) depends on the key and its global index alone. One Philox block gives the elements 2p and 2p
// + 1.
#include "kernels/random.hpp"

#include <utility>

#include "core/calls.hpp"
#include "core/rng.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// bf16 is rounded from f32; f64 is not rounded.
template <class T>
T rounded(double x) {
    if constexpr (std::is_same_v<T, double>)
        return x;
    else
        return convert<T>(static_cast<float>(x));
}

/// put(to[j], element first + j) for j = 0 ... n - 1; pair(p) gives the elements 2p and 2p + 1.
template <class T, class Pair, class Put>
void for_row(T* to, std::uint64_t first, std::int64_t n, Pair pair, Put put) {
    if (n <= 0) return;
    const std::int64_t skipped = static_cast<std::int64_t>(first % 2), pairs = (n - skipped) / 2;
    const std::uint64_t first_pair = (first + 1) / 2;
    if (skipped == 1) put(*to++, pair(first / 2).second);
#pragma omp simd
    for (std::int64_t p = 0; p < pairs; ++p) {
        const std::pair<double, double> drawn = pair(first_pair + static_cast<std::uint64_t>(p));
        put(to[2 * p], drawn.first);
        put(to[2 * p + 1], drawn.second);
    }
    if (n - skipped > 2 * pairs)
        put(to[2 * pairs], pair(first_pair + static_cast<std::uint64_t>(pairs)).first);
}

template <class Pair>
void fill_region(Tensor x, const Region& region, const Pair& pair) {
    check_matrix("tensor of initial values", x);
    if (x.empty()) return;
    const std::int64_t cols = x.dim(1);
    const std::int64_t valid_rows = std::min(region.valid_rows, x.dim(0)),
                       valid = std::min(region.valid_cols, cols);
    dispatch(x.dtype(), [&]<class T>() {
        for_row_blocks(x.dim(0), cols, [&](std::int64_t i, std::int64_t begin, std::int64_t end) {
            T* row = x.data<T>() + i * cols;
            const std::int64_t filled = i < valid_rows ? std::clamp(valid, begin, end) : begin;
            const std::int64_t first = (region.row0 + i) * region.global_cols + region.col0 + begin;
            for_row(row + begin, static_cast<std::uint64_t>(first), filled - begin, pair,
                    [](T& to, double value) { to = rounded<T>(value); });
            std::fill(row + filled, row + end, T{});
        });
    });
}

}  // namespace

void fill_normal(Tensor x, const Region& region, std::uint64_t key, double std) {
    count_kernel(__func__);
    fill_region(x, region, [=](std::uint64_t p) {
        const auto [even, odd] = normal_pair(key, p);
        return std::pair(std * even, std * odd);
    });
}

void fill_uniform(Tensor x, const Region& region, std::uint64_t key, double bound) {
    count_kernel(__func__);
    fill_region(x, region, [=](std::uint64_t p) {
        const auto [even, odd] = uniform_pair(key, p);
        return std::pair(bound * (2 * even - 1), bound * (2 * odd - 1));
    });
}

void add_normal(Tensor x, const Region& region, std::uint64_t key, double scale, Tensor row_scale) {
    count_kernel(__func__);
    check("row scale", row_scale, accumulate_type(x.dtype()), {x.dim(0)});
    const std::int64_t cols = std::min(region.valid_cols, x.dim(1));
    dispatch(x.dtype(), [&]<class T>() {
        for_row_blocks(
            std::min(region.valid_rows, x.dim(0)), cols,
            [&](std::int64_t i, std::int64_t begin, std::int64_t end) {
                const std::int64_t first = (region.row0 + i) * region.global_cols + region.col0 + begin;
                const double std = scale * static_cast<double>(row_scale.data<Wide<T>>()[i]);
                for_row(
                    x.data<T>() + i * x.dim(1) + begin, static_cast<std::uint64_t>(first), end - begin,
                    [=](std::uint64_t p) {
                        const auto [even, odd] = normal_pair(key, p);
                        return std::pair(std * even, std * odd);
                    },
                    [](T& to, double noise) { to = convert<T>(load(to) + static_cast<Wide<T>>(noise)); });
            });
    });
}

}  // namespace switchyard::kernels

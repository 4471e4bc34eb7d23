// Element (i, j) is a function of the key and its global index alone. One Philox block serves the elements 2p
// and 2p + 1.
#include "kernels/random.hpp"

#include <utility>

#include "core/rng.hpp"
#include "kernels/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// Through f32 to bf16; f64 stays.
template <class T>
T rounded(double x) {
    if constexpr (std::is_same_v<T, double>)
        return x;
    else
        return convert<T>(static_cast<float>(x));
}

/// to[0 ... n) <- elements first ... first + n - 1; pair(p) gives the elements 2p and 2p + 1.
template <class T, class Pair>
void fill_row(T* to, std::uint64_t first, std::int64_t n, const Pair& pair) {
    std::int64_t j = 0;
    if (n > 0 && first % 2 == 1) to[j++] = rounded<T>(pair(first / 2).second);
    for (; j + 1 < n; j += 2) {
        const auto [even, odd] = pair((first + static_cast<std::uint64_t>(j)) / 2);
        to[j] = rounded<T>(even);
        to[j + 1] = rounded<T>(odd);
    }
    if (j < n) to[j] = rounded<T>(pair((first + static_cast<std::uint64_t>(j)) / 2).first);
}

template <class Pair>
void fill_region(Tensor x, const Region& region, const Pair& pair) {
    internal_check(x.shape().rank() == 2, "initial values for a tensor {}", x.shape().text());
    if (x.empty()) return;
    const std::int64_t cols = x.dim(1);
    const std::int64_t valid_rows = std::min(region.valid_rows, x.dim(0)),
                       valid = std::min(region.valid_cols, cols);
    dispatch(x.dtype(), [&]<class T>() {
        for_row_blocks(x.dim(0), cols, [&](std::int64_t i, std::int64_t begin, std::int64_t end) {
            T* row = x.data<T>() + i * cols;
            const std::int64_t filled = i < valid_rows ? std::clamp(valid, begin, end) : begin;
            const std::int64_t first = (region.row0 + i) * region.global_cols + region.col0 + begin;
            fill_row(row + begin, static_cast<std::uint64_t>(first), filled - begin, pair);
            std::fill(row + filled, row + end, T{});
        });
    });
}

}  // namespace

void fill_normal(Tensor x, const Region& region, std::uint64_t key, double std) {
    fill_region(x, region, [=](std::uint64_t p) {
        const auto [even, odd] = normal_pair(key, p);
        return std::pair(std * even, std * odd);
    });
}

void fill_uniform(Tensor x, const Region& region, std::uint64_t key, double bound) {
    fill_region(x, region, [=](std::uint64_t p) {
        const auto [even, odd] = uniform_pair(key, p);
        return std::pair(bound * (2 * even - 1), bound * (2 * odd - 1));
    });
}

}  // namespace switchyard::kernels

// Vectorised over the elements, never over the ranks, so that values are added in rank order.
#include "comm/ordered_sum.hpp"

#include <algorithm>
#include <type_traits>

#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/shared_loop.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t block = 2048;  // elements accumulated at a time; they stay in the first-level cache
constexpr std::int64_t worth_threads =
    65536;  // number of elements read below which a parallel region costs more than it saves

template <class T>
auto widen(T x) {
    if constexpr (std::is_same_v<T, bf16>)
        return to_f32(x);
    else
        return x;
}

template <class T, class Sum>
T narrow(Sum x) {
    if constexpr (std::is_same_v<T, bf16>)
        return to_bf16(x);
    else
        return x;
}

template <class T>
void sum_parts(T* sum, const T* parts, int num_parts, std::int64_t stride, std::int64_t count) {
    using Sum = decltype(widen(T{}));
    for_shared((count + block - 1) / block, count * num_parts > worth_threads, [=](std::int64_t number) {
        const std::int64_t begin = number * block;
        const std::int64_t length = std::min(block, count - begin);
        alignas(64) Sum total[block];
        for (std::int64_t i = 0; i < length; ++i) total[i] = widen(parts[begin + i]);
        for (int p = 1; p < num_parts; ++p) {
            const T* part = parts + p * stride + begin;
            for (std::int64_t i = 0; i < length; ++i) total[i] += widen(part[i]);
        }
        for (std::int64_t i = 0; i < length; ++i) sum[begin + i] = narrow<T>(total[i]);
    });
}

}  // namespace

void ordered_sum(DType dtype, void* sum, const void* parts, int num_parts, std::int64_t stride,
                 std::int64_t count) {
    const auto run = [&]<class T>(T) {
        sum_parts(static_cast<T*>(sum), static_cast<const T*>(parts), num_parts, stride, count);
    };
    switch (dtype) {
        case DType::f32:
            return run(float{});
        case DType::bf16:
            return run(bf16{});
        case DType::f64:
            return run(double{});
        default:
            internal_check(false, "sum over ranks of {}", name_of(dtype));
    }
}

}  // namespace switchyard

// The rotation runs in place, one token at a time.
#include "kernels/rope.hpp"

#include "core/calls.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// (low, high) <- rotation by the angle with these cosines and `sign` times these sines; n = D/2.
template <class T>
void rotate_head(T* low, T* high, const Wide<T>* cosine, const Wide<T>* sine, Wide<T> sign, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
        const Wide<T> a = load(low[i]), b = load(high[i]), s = sign * sine[i];
        low[i] = convert<T>(a * cosine[i] - b * s);
        high[i] = convert<T>(b * cosine[i] + a * s);
    }
}

}  // namespace

void rope(Tensor x, Tensor table, Rotation rotation) {
    count_kernel(__func__);
    const auto [batch, tokens, heads, half] = check_rope(x, table);
    if (x.empty()) return;
    dispatch(x.dtype(), [&, batch = batch, tokens = tokens, heads = heads, half = half]<class T>() {
        const Wide<T> sign = rotation == Rotation::forward ? 1 : -1;
        for_rows(batch * tokens, heads * 2 * half, [=](std::int64_t row) {
            const Wide<T>* cosine = table.data<Wide<T>>() + row % tokens * 2 * half;
            T* head = x.data<T>() + row * heads * 2 * half;
            for (std::int64_t h = 0; h < heads; ++h, head += 2 * half)
                rotate_head(head, head + half, cosine, cosine + half, sign, half);
        });
    });
}

}  // namespace switchyard::kernels

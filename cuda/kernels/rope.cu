// Threads of a block divide the pairs of chunks of a few tokens, so that table and heads are read in long
// runs. Each pair (i, i + D/2) is read and written by one thread, hence in place.
#include <cmath>

#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/model.hpp"
#include "kernels/rope.hpp"

namespace switchyard::kernels {
namespace {

constexpr int max_block = 256;

/// x (rows, heads, 2 half), table (tokens, 2, half); rows = a multiple of tokens. `team` threads share a row.
template <class T, int n>
__global__ void __launch_bounds__(max_block)
    rotate(T* x, const Wide<T>* table, Wide<T> sign, std::int64_t rows, std::int64_t tokens, int heads,
           int half, int team) {
    const int thread = static_cast<int>(threadIdx.x), teams = static_cast<int>(blockDim.x) / team;
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * teams + thread / team;
    if (thread >= teams * team || row >= rows) return;
    const Wide<T>* cosine = table + row % tokens * 2 * half;
    T* const heads_of_row = x + row * heads * 2 * half;
    const int per_head = half / n;
    for (int pair = thread % team; pair < heads * per_head; pair += team) {
        const int i = pair % per_head * n;
        T* const low = heads_of_row + static_cast<std::int64_t>(pair / per_head) * 2 * half + i;
        const auto c = load_chunk<n>(cosine + i), s = load_chunk<n>(cosine + half + i);
        auto a = load_chunk<n>(low), b = load_chunk<n>(low + half);
        for (int e = 0; e < n; ++e) {
            const Wide<T> x_low = wide(a.x[e]), x_high = wide(b.x[e]), sine = sign * s.x[e];
            a.x[e] = narrow<T>(x_low * c.x[e] - x_high * sine);
            b.x[e] = narrow<T>(x_high * c.x[e] + x_low * sine);
        }
        store_chunk(low, a);
        store_chunk(low + half, b);
    }
}

}  // namespace

void rope(Tensor x, Tensor table, Rotation rotation) {
    count_kernel(__func__);
    const auto [batch, tokens, heads, half] = check_rope(x, table);
    if (x.empty()) return;
    dispatch(x.dtype(), [&, batch = batch, tokens = tokens, heads = heads, half = half]<class T>() {
        const Wide<T> sign = rotation == Rotation::forward ? 1 : -1;
        with_chunks<T>(half % cuda::Vector<T>::size == 0 && aligned(x, table), [&]<int n>() {
            const std::int64_t pairs = heads * half / n, rows = batch * tokens;
            const int team = static_cast<int>(std::min<std::int64_t>(pairs, max_block));
            const int block = block_threads(std::min<std::int64_t>(rows, max_block / team) * team);
            cuda::launch({cuda::ceil_div(rows, block / team), block}, rotate<T, n>, x.data<T>(),
                         table.data<const Wide<T>>(), sign, rows, tokens, static_cast<int>(heads),
                         static_cast<int>(half), team);
        });
    });
}

}  // namespace switchyard::kernels

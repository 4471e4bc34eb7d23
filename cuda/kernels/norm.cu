// A row belongs to a team: as many threads as it has chunks, at most 512. Threads keep their chunk in
// registers between the two passes; rows longer than a team are read again. In the backward pass a block
// takes one group of rows, and each thread sums the weight's gradient of its own columns. Groups depend on N
// alone, so the bits are the same on every device.
#include <bit>
#include <cmath>

#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/model.hpp"
#include "kernels/norm.hpp"

namespace switchyard::kernels {
namespace {

using cuda::ceil_div;
using cuda::warp_size;

constexpr int max_team = 512, usual_block = 256;

/// Threads of a team and of a block: a team is part of a warp (a power of two) or whole warps.
struct Teams {
    int threads, block;
};

Teams teams_for(std::int64_t chunks, std::int64_t rows) {
    const int threads = chunks <= warp_size
                            ? static_cast<int>(std::bit_ceil(static_cast<std::uint64_t>(chunks)))
                            : block_threads(chunks, max_team);
    const std::int64_t teams = std::clamp<std::int64_t>(rows, 1, std::max(1, usual_block / threads));
    return {threads, block_threads(teams * threads, max_team)};
}

template <class X>
struct WarpSums {
    X of[2][max_team / warp_size];
};

/// The sum over a team, on all its threads. All threads of the block call it, with the two rows of WarpSums
/// in turns: what one call reads, the next call does not overwrite.
template <class X>
__device__ X team_sum(X x, int team, X* of_warps) {
    x = cuda::combine_lanes<Addition>(x, team < warp_size ? team : warp_size);
    if (team <= warp_size) return x;
    const int thread = static_cast<int>(threadIdx.x), warps = team / warp_size;
    if (thread % warp_size == 0) of_warps[thread / warp_size] = x;
    __syncthreads();
    X sum = 0;
    for (int w = 0; w < warps; ++w) sum += of_warps[thread / team * warps + w];
    return sum;
}

template <class T, int n>
__device__ Chunk<T, n> added(const Chunk<T, n>& a, const Chunk<T, n>& b) {
    Chunk<T, n> sum;
    for (int i = 0; i < n; ++i) sum.x[i] = narrow<T>(wide(a.x[i]) + wide(b.x[i]));
    return sum;
}

/// sum <- x + y unless y is null; h, rstd <- the norm of the sum (of x).
template <class T, int n>
__global__ void __launch_bounds__(max_team)
    normalise(const T* x, const T* y, const T* weight, T* sum, T* h, Wide<T>* rstd, std::int64_t rows,
              std::int64_t width, double eps, int team) {
    auto& sums = cuda::block_memory<WarpSums<Wide<T>>>();
    const int thread = static_cast<int>(threadIdx.x), teams = static_cast<int>(blockDim.x) / team;
    const std::int64_t first = thread % team * n, step = team * n;
    Chunk<T, n> values{}, scale{};
    if (first < width) scale = load_chunk<n>(weight + first);
    int round = 0;
    for (std::int64_t top = static_cast<std::int64_t>(blockIdx.x) * teams; top < rows;
         top += static_cast<std::int64_t>(gridDim.x) * teams) {
        const std::int64_t row = top + thread / team, start = row * width, end = row < rows ? width : 0;
        Wide<T> squares = 0;
        for (std::int64_t j = first; j < end; j += step) {
            values = load_chunk<n>(x + start + j);
            if (y) {
                values = added(values, load_chunk<n>(y + start + j));
                store_chunk(sum + start + j, values);
            }
            for (int i = 0; i < n; ++i) squares = std::fma(wide(values.x[i]), wide(values.x[i]), squares);
        }
        squares = team_sum(squares, team, sums.of[round++ % 2]);
        // In f64 as on a CPU: backward subtracts nearly equal numbers that contain it.
        const auto factor = static_cast<Wide<T>>(
            1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(width) + eps));
        for (std::int64_t j = first; j < end; j += step) {
            if (width > step) {
                values = load_chunk<n>((y ? sum : x) + start + j);
                scale = load_chunk<n>(weight + j);
            }
            Chunk<T, n> out;
            for (int i = 0; i < n; ++i) out.x[i] = narrow<T>(wide(values.x[i]) * factor * wide(scale.x[i]));
            store_chunk(h + start + j, out);
        }
        if (end > 0 && first == 0) rstd[row] = factor;
    }
}

template <class X, int n>
struct BackwardMemory {
    WarpSums<X> sums;
    X d_weight[usual_block * n];  // (teams, width), if there are several teams
};

/// (groups, width): d_weight of each group of rows.
template <class T>
struct NormGradient {
    const T *d_h, *x, *weight;
    const Wide<T>* rstd;
    T* d_x;
    Wide<T>* d_weight;
    std::int64_t rows, width, group_rows;
    int team;
};

/// d_x += rstd (weight d_h - x rstd^2 mean(weight d_h x)). In rows longer than a team, the sums of d_weight
/// are kept in memory, because threads have several chunks.
template <class T, int n>
__global__ void __launch_bounds__(max_team) backward(NormGradient<T> g) {
    using X = Wide<T>;
    auto& shared = cuda::block_memory<BackwardMemory<X, n>>();
    const int thread = static_cast<int>(threadIdx.x), teams = static_cast<int>(blockDim.x) / g.team;
    const std::int64_t first = thread % g.team * n, step = g.team * n;
    const bool several = g.width > step;  // chunks of a thread
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * g.group_rows;
    const std::int64_t end = std::min(begin + g.group_rows, g.rows);
    X* const of_group = g.d_weight + static_cast<std::int64_t>(blockIdx.x) * g.width;
    Chunk<X, n> d_weight{};
    Chunk<T, n> scale{};
    if (first < g.width) scale = load_chunk<n>(g.weight + first);
    for (std::int64_t j = first; several && j < g.width; j += step) store_chunk(of_group + j, d_weight);
    int round = 0;
    for (std::int64_t top = begin; top < end; top += teams) {
        const std::int64_t row = top + thread / g.team, start = row * g.width,
                           width = row < end ? g.width : 0;
        const X factor = row < end ? g.rstd[row] : X(0);
        Chunk<T, n> gradient{}, input{}, d_x{};
        X dot = 0;
        for (std::int64_t j = first; j < width; j += step) {
            gradient = load_chunk<n>(g.d_h + start + j);
            input = load_chunk<n>(g.x + start + j);
            d_x = load_chunk<n>(g.d_x + start + j);
            if (several) {
                scale = load_chunk<n>(g.weight + j);
                d_weight = load_chunk<n>(of_group + j);
            }
            for (int i = 0; i < n; ++i) {
                const X product = wide(gradient.x[i]) * wide(input.x[i]);
                d_weight.x[i] = std::fma(product, factor, d_weight.x[i]);
                dot = std::fma(product, wide(scale.x[i]), dot);
            }
            if (several) store_chunk(of_group + j, d_weight);
        }
        dot = team_sum(dot, g.team, shared.sums.of[round++ % 2]);
        const X common = factor * factor * dot / static_cast<X>(g.width);
        for (std::int64_t j = first; j < width; j += step) {
            if (several) {
                gradient = load_chunk<n>(g.d_h + start + j);
                input = load_chunk<n>(g.x + start + j);
                d_x = load_chunk<n>(g.d_x + start + j);
                scale = load_chunk<n>(g.weight + j);
            }
            for (int i = 0; i < n; ++i) {
                const X inner = std::fma(wide(scale.x[i]), wide(gradient.x[i]), -(wide(input.x[i]) * common));
                d_x.x[i] = narrow<T>(std::fma(factor, inner, wide(d_x.x[i])));
            }
            store_chunk(g.d_x + start + j, d_x);
        }
    }
    if (several) return;
    if (teams == 1) {
        if (first < g.width) store_chunk(of_group + first, d_weight);
        return;
    }
    if (first < g.width) store_chunk(shared.d_weight + thread / g.team * g.width + first, d_weight);
    __syncthreads();
    for (std::int64_t j = thread; j < g.width; j += blockDim.x) {
        X sum = 0;
        for (int t = 0; t < teams; ++t) sum += shared.d_weight[t * g.width + j];
        of_group[j] = sum;
    }
}

constexpr int max_slices = 16;
template <class X>
struct SliceSums {
    X of[max_slices][warp_size];
};

/// d_weight (width) += the sum of parts (groups, width). A warp sums every so many'th group of 32 columns.
template <class X>
__global__ void __launch_bounds__(max_slices* warp_size)
    add_groups(const X* parts, X* d_weight, std::int64_t groups, std::int64_t width) {
    auto& sums = cuda::block_memory<SliceSums<X>>();
    const int lane = static_cast<int>(threadIdx.x) % warp_size,
              slice = static_cast<int>(threadIdx.x) / warp_size;
    const int slices = static_cast<int>(blockDim.x) / warp_size;
    const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * warp_size + lane;
    X sum = 0;
    for (std::int64_t group = slice; group < groups && column < width; group += slices)
        sum += parts[group * width + column];
    sums.of[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || column >= width) return;
    X total = d_weight[column];
    for (int s = 0; s < slices; ++s) total += sums.of[s][lane];
    d_weight[column] = total;
}

/// y and sum: empty for the norm of x alone.
void launch_normalise(Tensor x, Tensor y, Tensor weight, Tensor sum, Tensor h, Tensor rstd, double eps) {
    const std::int64_t rows = x.dim(0), width = x.dim(1);
    dispatch(x.dtype(), [&]<class T>() {
        const bool vectors = width % cuda::Vector<T>::size == 0 && aligned(x, y, weight, sum, h);
        with_chunks<T>(vectors, [&]<int n>() {
            const auto [team, block] = teams_for(width / n, rows);
            const cuda::Grid grid{std::min(ceil_div(rows, block / team), resident_blocks(block)), block,
                                  sizeof(WarpSums<Wide<T>>)};
            cuda::launch(grid, normalise<T, n>, x.data<T>(), y.data<T>(), weight.data<T>(), sum.data<T>(),
                         h.data<T>(), rstd.data<Wide<T>>(), rows, width, eps, team);
        });
    });
}

/// Rows of a group, whose part of the weight's gradient is summed by one block.
std::int64_t group_rows_of(std::int64_t rows) {
    constexpr std::int64_t max_groups = 512, min_group_rows = 8;
    return std::max(min_group_rows, ceil_div(rows, max_groups));
}

}  // namespace

void rms_norm_forward(Tensor x, Tensor weight, Tensor h, Tensor rstd, double eps) {
    count_kernel(__func__);
    check_norm(x, weight, h, rstd);
    if (x.empty()) return;
    launch_normalise(x, {}, weight, {}, h, rstd, eps);
}

void add_rms_norm_forward(Tensor x, Tensor y, Tensor weight, Tensor sum, Tensor h, Tensor rstd, double eps) {
    count_kernel(__func__);
    check_norm(x, weight, h, rstd);
    check("addend of a norm", y, x.dtype(), x.shape());
    check("sum of a norm", sum, x.dtype(), x.shape());
    if (x.empty()) return;
    launch_normalise(x, y, weight, sum, h, rstd, eps);
}

std::size_t rms_norm_scratch_bytes(std::int64_t rows, std::int64_t width, DType compute) {
    return static_cast<std::size_t>(ceil_div(rows, group_rows_of(rows)) * width) *
           size_of(accumulate_type(compute));
}

void rms_norm_backward(Tensor d_h, Tensor x, Tensor weight, Tensor rstd, Tensor d_x, Tensor d_weight,
                       Tensor scratch) {
    count_kernel(__func__);
    const auto [rows, width] = check_norm(x, weight, d_h, rstd);
    check("gradient of a norm's input", d_x, x.dtype(), x.shape());
    check("gradient of a norm's weight", d_weight, accumulate_type(x.dtype()), {width});
    if (x.empty()) return;
    check_scratch("norm", scratch, rms_norm_scratch_bytes(rows, width, x.dtype()));
    const std::int64_t group_rows = group_rows_of(rows), groups = ceil_div(rows, group_rows);
    dispatch(x.dtype(), [&, rows = rows, width = width]<class T>() {
        using X = Wide<T>;
        const bool vectors = width % cuda::Vector<T>::size == 0 && aligned(d_h, x, weight, d_x, scratch);
        with_chunks<T>(vectors, [&]<int n>() {
            const auto [team, block] = teams_for(width / n, std::min(rows, group_rows));
            cuda::launch({groups, block, sizeof(BackwardMemory<X, n>)}, backward<T, n>,
                         NormGradient<T>{d_h.data<T>(), x.data<T>(), weight.data<T>(), rstd.data<X>(),
                                         d_x.data<T>(), scratch.data<X>(), rows, width, group_rows, team});
        });
        const int slices = static_cast<int>(std::clamp<std::int64_t>(groups / 4, 1, max_slices));
        cuda::launch({ceil_div(width, warp_size), slices * warp_size, sizeof(SliceSums<X>)}, add_groups<X>,
                     scratch.data<const X>(), d_weight.data<X>(), groups, width);
    });
}

}  // namespace switchyard::kernels

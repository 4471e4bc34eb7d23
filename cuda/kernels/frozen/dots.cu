// A block sums a row: thread t takes every 256th element, then lanes and warps are combined in a fixed order.
// Columns are summed in chunks of rows (at most 32, whose sums are kept in the workspace), a block 32 columns
// of a chunk; a second launch adds the chunks in order. The bits do not depend on the GPU.
#include "core/calls.hpp"
#include "cuda/kernels/frozen/block_sum.cuh"
#include "cuda/kernels/frozen/tiles.cuh"
#include "cuda/workspace.hpp"
#include "kernels/checks/dots.hpp"

namespace switchyard::kernels {
namespace {

using cuda::ceil_div;
using cuda::warp_size;

constexpr int block = WarpSums::threads, warps = block / warp_size;

struct ColumnMemory {
    double sums[warps][warp_size];
};

/// out[row] += scale * <a, b> of the block's row.
template <class A, class B, class Out>
__global__ void __launch_bounds__(block)
    row_dots(const A* a, const B* b, std::int64_t width, double scale, Out* out) {
    const std::int64_t start = std::int64_t{blockIdx.x} * width;
    double sum = 0;
    for (std::int64_t j = threadIdx.x; j < width; j += block)
        sum += static_cast<double>(wide(a[start + j])) * static_cast<double>(wide(b[start + j]));
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        out[blockIdx.x] = static_cast<Out>(static_cast<double>(out[blockIdx.x]) + scale * sum);
}

template <class W>
__global__ void __launch_bounds__(block) row_squares(Words<W> w, std::int64_t width, Wide<W>* out) {
    const std::int64_t start = std::int64_t{blockIdx.x} * width;
    double sum = 0;
    for (std::int64_t j = threadIdx.x; j < width; j += block) {
        const auto value = static_cast<double>(load_piece<1>(w, start + j, 1, false).value(0));
        sum += value * value;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = static_cast<Wide<W>>(sum);
}

template <class A, class B>
struct Products {
    const A* a;
    const B* b;
    __device__ double operator()(std::int64_t at) const {
        return static_cast<double>(wide(a[at])) * static_cast<double>(wide(b[at]));
    }
};

template <class A>
struct Elements {
    const A* a;
    __device__ double operator()(std::int64_t at) const { return static_cast<double>(wide(a[at])); }
};

/// Terms (rows, width), cut into chunks of rows.
template <class Term>
struct Columns {
    Term term;
    std::int64_t rows, width, chunk;
};

/// parts (chunks, width): the block's columns of its chunk; warp w sums rows w, w + 8, ...
template <class Term>
__global__ void __launch_bounds__(block) sum_chunks(Columns<Term> c, double* parts) {
    auto& shared = cuda::block_memory<ColumnMemory>();
    const std::int64_t across = ceil_div(c.width, warp_size), chunk = blockIdx.x / across;
    const int lane = static_cast<int>(threadIdx.x) % warp_size,
              warp = static_cast<int>(threadIdx.x) / warp_size;
    const std::int64_t column = blockIdx.x % across * warp_size + lane;
    const std::int64_t end = std::min(c.rows, (chunk + 1) * c.chunk);
    double sum = 0;
    for (std::int64_t row = chunk * c.chunk + warp; row < end && column < c.width; row += warps)
        sum += c.term(row * c.width + column);
    shared.sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= c.width) return;
    double all = 0;
    for (int w = 0; w < warps; ++w) all += shared.sums[w][lane];
    parts[chunk * c.width + column] = all;
}

/// out[column] += scale * the sum of its parts; a thread a column.
template <class Out>
__global__ void __launch_bounds__(block)
    add_chunks(const double* parts, std::int64_t chunks, std::int64_t width, double scale, Out* out) {
    const std::int64_t column = std::int64_t{blockIdx.x} * block + threadIdx.x;
    if (column >= width) return;
    double sum = 0;
    for (std::int64_t i = 0; i < chunks; ++i) sum += parts[i * width + column];
    out[column] = static_cast<Out>(static_cast<double>(out[column]) + scale * sum);
}

/// out += scale * the sums of the columns of term(i), i an index into (rows, width).
template <class Term>
void add_columns(const Term& term, std::int64_t rows, std::int64_t width, double scale, Tensor out) {
    constexpr std::int64_t fewest_rows = 256, most_chunks = 32;
    const std::int64_t chunk = std::max(fewest_rows, ceil_div(rows, most_chunks)),
                       chunks = ceil_div(rows, chunk);
    auto* parts = cuda::workspace_of<double>(chunks * width);
    cuda::launch({chunks * ceil_div(width, warp_size), block, sizeof(ColumnMemory)}, sum_chunks<Term>,
                 Columns<Term>{term, rows, width, chunk}, parts);
    with_vector(out, [&]<class Out>(Out* to) {
        cuda::launch({ceil_div(width, block), block}, add_chunks<Out>, parts, chunks, width, scale, to);
    });
}

}  // namespace

void add_column_dots(Tensor a, Tensor b, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, b, out, 1);
    if (a.empty()) return;
    dispatch_both(a, b, [&]<class A, class B>() {
        add_columns(Products<A, B>{a.data<A>(), b.data<B>()}, a.dim(0), a.dim(1), scale, out);
    });
}

void add_column_sums(Tensor a, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, a, out, 1);
    if (a.empty()) return;
    dispatch(a.dtype(),
             [&]<class A>() { add_columns(Elements<A>{a.data<A>()}, a.dim(0), a.dim(1), scale, out); });
}

void add_row_dots(Tensor a, Tensor b, double scale, Tensor out) {
    count_kernel(__func__);
    check_dots(a, b, out, 0);
    if (a.empty()) return;
    dispatch_both(a, b, [&]<class A, class B>() {
        with_vector(out, [&]<class Out>(Out* to) {
            cuda::launch({a.dim(0), block, sizeof(WarpSums)}, row_dots<A, B, Out>, a.data<A>(), b.data<B>(),
                         a.dim(1), scale, to);
        });
    });
}

void row_squared_norms(FrozenWeight w, Tensor out) {
    count_kernel(__func__);
    check_squared_norms(w, out);
    if (w.hi.empty()) return;
    dispatch(w.hi.dtype(), [&]<class W>() {
        cuda::launch({w.hi.dim(0), block, sizeof(WarpSums)}, row_squares<W>, words_of<W>(w), w.hi.dim(1),
                     out.data<Wide<W>>());
    });
}

}  // namespace switchyard::kernels

// Forward copies rows. Backward has a block for every token and slice of columns: the block looks for equal
// tokens from the start of the list on, ends if there is one before its own, and adds the rows of the others
// in order, so each row of the table is summed in token order by one block, as on a CPU.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "kernels/checks/model.hpp"
#include "kernels/embedding.hpp"

namespace switchyard::kernels {
namespace {

using cuda::ceil_div;
using cuda::warp_size;

constexpr int max_block = 256;

/// Row of the local table, or -1 if another rank holds it.
__device__ std::int64_t local_row(std::int32_t token, VocabRange range) {
    const std::int64_t row = token - range.begin;
    return row >= 0 && row < range.count ? row : -1;
}

/// x (count, width) <- rows of the table, a chunk a thread.
template <class T, int n>
__global__ void __launch_bounds__(256) copy_rows(const std::int32_t* tokens, const T* table, VocabRange range,
                                                 T* x, std::int64_t count, int width) {
    const int per_row = width / n;
    for (std::int64_t unit = first_unit(); unit < count * per_row; unit += unit_step()) {
        const std::int64_t i = unit / per_row, column = unit % per_row * n, row = local_row(tokens[i], range);
        store_chunk(x + i * width + column,
                    row >= 0 ? load_chunk<n>(table + row * width + column) : Chunk<T, n>{});
    }
}

/// The tokens that a block looks at together: a word of bits for every lane of a warp.
constexpr int window = warp_size * warp_size;
struct Window {
    unsigned equal[warp_size];    // bit t of word w: token 32 w + t of the window is the block's token
    int count, position[window];  // the equal tokens in order, relative to the window
};

/// Fills in `at` for the tokens [begin, begin + window) of `count`. All threads of the block call it.
__device__ void find_equal(const std::int32_t* tokens, std::int64_t begin, std::int64_t count,
                           std::int32_t token, Window& at) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size,
              warp = static_cast<int>(threadIdx.x) / warp_size;
    const int warps = static_cast<int>(blockDim.x) / warp_size;
    const int words = static_cast<int>(std::min<std::int64_t>(ceil_div(count - begin, warp_size), warp_size));
    __syncthreads();  // the window before is no longer read
    for (int word = warp; word < words; word += warps) {
        const std::int64_t i = begin + word * warp_size + lane;
        const unsigned equal = __ballot_sync(cuda::all_lanes, i < count && tokens[i] == token);
        if (lane == 0) at.equal[word] = equal;
    }
    __syncthreads();
    if (warp == 0) {
        unsigned mine = lane < words ? at.equal[lane] : 0;
        const int number = __popc(mine);
        int next = number;  // the sum over lanes up to this one
        for (int distance = 1; distance < warp_size; distance *= 2) {
            const int before = __shfl_sync(cuda::all_lanes, next, lane >= distance ? lane - distance : lane);
            if (lane >= distance) next += before;
        }
        if (lane == warp_size - 1) at.count = next;
        for (next -= number; mine != 0; mine &= mine - 1)
            at.position[next++] = lane * warp_size + __ffs(static_cast<int>(mine)) - 1;
    }
    __syncthreads();
}

/// sum += rows of d_x: those of the window's equal tokens, in order. Several loads are under way at a time.
template <class T, int n>
__device__ void add_rows(const T* d_x, std::int64_t width, const Window& at, Chunk<Wide<T>, n>& sum) {
    constexpr int together = 8;
    for (int first = 0; first < at.count; first += together) {
        Chunk<T, n> rows[together];
        for (int r = 0; r < together; ++r)
            if (first + r < at.count) rows[r] = load_chunk<n>(d_x + at.position[first + r] * width);
        for (int r = 0; r < together; ++r)
            for (int i = 0; i < n && first + r < at.count; ++i) sum.x[i] += wide(rows[r].x[i]);
    }
}

/// d_table (rows, width) += the rows of d_x (count, width); `slices` blocks share a row.
template <class T, int n>
__global__ void __launch_bounds__(max_block)
    add_to_table(const std::int32_t* tokens, const T* d_x, VocabRange range, Wide<T>* d_table,
                 std::int64_t count, std::int64_t width, int slices) {
    Window& at = cuda::block_memory<Window>();
    const std::int64_t mine = blockIdx.x / static_cast<unsigned>(slices);
    const std::int64_t slice = blockIdx.x % static_cast<unsigned>(slices);
    const std::int64_t column = (slice * blockDim.x + threadIdx.x) * n, row = local_row(tokens[mine], range);
    if (row < 0) return;  // the whole block
    Wide<T>* const to = d_table + row * width + column;
    Chunk<Wide<T>, n> sum{};
    bool first = true;  // no equal token yet
    for (std::int64_t begin = 0; begin < count; begin += window) {
        find_equal(tokens, begin, count, tokens[mine], at);
        if (first && at.count > 0) {
            if (begin + at.position[0] < mine) return;  // another block has this row
            first = false;
            if (column < width) sum = load_chunk<n>(to);
        }
        if (column < width) add_rows(d_x + begin * width + column, width, at, sum);
    }
    if (column < width) store_chunk(to, sum);
}

}  // namespace

void embedding_forward(Tensor tokens, Tensor table, VocabRange range, Tensor x) {
    count_kernel(__func__);
    check_embedding(tokens, table, range, x);
    check_dtype("embedded tokens", x, table.dtype());
    if (x.empty()) return;
    const std::int64_t count = tokens.size(), width = x.dim(1);
    dispatch(x.dtype(), [&]<class T>() {
        with_chunks<T>(width % cuda::Vector<T>::size == 0 && aligned(table, x), [&]<int n>() {
            cuda::launch(grid_for(count * width / n), copy_rows<T, n>, tokens.data<const std::int32_t>(),
                         table.data<const T>(), range, x.data<T>(), count, static_cast<int>(width));
        });
    });
}

void embedding_backward(Tensor tokens, Tensor d_x, VocabRange range, Tensor d_table) {
    count_kernel(__func__);
    check_embedding(tokens, d_table, range, d_x);
    check_dtype("gradient of a table", d_table, accumulate_type(d_x.dtype()));
    if (d_x.empty() || d_table.empty()) return;
    const std::int64_t count = tokens.size(), width = d_x.dim(1);
    dispatch(d_x.dtype(), [&]<class T>() {
        with_chunks<T>(width % cuda::Vector<T>::size == 0 && aligned(d_x, d_table), [&]<int n>() {
            const int block = block_threads(width / n, max_block);
            const auto slices = static_cast<int>(ceil_div(width / n, block));
            cuda::launch({count * slices, block, sizeof(Window)}, add_to_table<T, n>,
                         tokens.data<const std::int32_t>(), d_x.data<const T>(), range,
                         d_table.data<Wide<T>>(), count, width, slices);
        });
    });
}

}  // namespace switchyard::kernels

// Whole tensors, each element read or written once. A thread takes neighbouring numbers of up to 16 bytes, a
// block a piece of the tensor that is long enough to fill the GPU and short enough to share the work evenly.
// A transpose goes through a square tile in shared memory, so that both sides are accessed in whole rows.
#include "core/calls.hpp"
#include "cuda/kernels/items.cuh"
#include "cuda/kernels/packs.cuh"
#include "kernels/checks/tensors.hpp"
#include "kernels/elementwise.hpp"

namespace switchyard::kernels {
namespace {

/// A tensor to be zeroed; its 16-byte words begin at `first`, which is before or at the first byte.
struct Memory {
    std::byte *first = nullptr, *begin = nullptr, *end = nullptr;
    std::int64_t words_of_block = 0;
};

struct alignas(16) Word {
    std::uint32_t x[4];
};

template <class Memories>
__global__ void zero_memories(const Memories __grid_constant__ memories) {
    const int index = memories.index();
    const Memory& memory = memories.item[index];
    const std::int64_t first = std::int64_t{blockIdx.x - memories.first_block[index]} * memory.words_of_block;
    for (std::int64_t i = threadIdx.x; i < memory.words_of_block; i += blockDim.x) {
        std::byte* word = memory.first + (first + i) * std::int64_t{sizeof(Word)};
        if (word >= memory.end) return;
        if (word >= memory.begin && word + sizeof(Word) <= memory.end)
            *reinterpret_cast<Word*>(word) = {};
        else  // at the ends of the tensor
            for (std::byte* at = std::max(word, memory.begin); at < std::min(word + sizeof(Word), memory.end);
                 ++at)
                *at = std::byte{};
    }
}

/// f(index of a number, valid) for the packs of n numbers that a block of a tensor of `size` takes.
template <int n, class F>
__device__ void for_packs(std::int64_t size, std::int64_t of_block, const F& f) {
    const std::int64_t first = std::int64_t{blockIdx.x} * of_block;
    for (std::int64_t i = threadIdx.x; i < of_block; i += blockDim.x) {
        const std::int64_t at = (first + i) * n;
        if (at >= size) return;
        f(at, static_cast<int>(std::min<std::int64_t>(n, size - at)));
    }
}

template <int n, class T>
__global__ void fill_packs(T* to, std::int64_t size, std::int64_t of_block, double value) {
    Pack<T, n> pack;
    for (int i = 0; i < n; ++i) pack.x[i] = narrow<T>(value);
    for_packs<n>(size, of_block, [&](std::int64_t at, int valid) { store_pack(pack, to + at, valid); });
}

template <int n, class From, class To>
__global__ void copy_packs(const From* from, To* to, std::int64_t size, std::int64_t of_block) {
    for_packs<n>(size, of_block, [&](std::int64_t at, int valid) {
        store_pack(narrow_pack<To>(load_pack<n>(from + at, valid)), to + at, valid);
    });
}

template <class From, class To>
using Sum = std::conditional_t<std::is_same_v<From, double>, double, Wide<To>>;

template <int n, class From, class To>
__global__ void add_packs(const From* from, To* to, std::int64_t size, std::int64_t of_block,
                          Sum<From, To> alpha) {
    for_packs<n>(size, of_block, [&](std::int64_t at, int valid) {
        const Pack<From, n> x = load_pack<n>(from + at, valid);
        Pack<To, n> y = load_pack<n>(static_cast<const To*>(to + at), valid);
        for (int i = 0; i < n; ++i)
            y.x[i] = narrow<To>(alpha * static_cast<Sum<From, To>>(wide(x.x[i])) +
                                static_cast<Sum<From, To>>(wide(y.x[i])));
        store_pack(y, to + at, valid);
    });
}

constexpr int tile = cuda::warp_size, tile_rows = 8;  // rows of a tile that a block takes at once

/// A column more than needed, so that the threads of a warp find a column in different banks.
template <class To>
struct TransposeTile {
    To x[tile][tile + 1];
};

/// to (cols, rows) = transpose of from (rows, cols): a block a tile; warp w takes rows w, w + tile_rows, ...
template <class From, class To>
__global__ void transpose_tile(const From* from, To* to, std::int64_t rows, std::int64_t cols) {
    auto& shared = cuda::block_memory<TransposeTile<To>>();
    const std::int64_t across = cuda::ceil_div(cols, tile);
    const std::int64_t row = blockIdx.x / across * tile, col = blockIdx.x % across * tile;
    const int lane = static_cast<int>(threadIdx.x) % tile, warp = static_cast<int>(threadIdx.x) / tile;
    for (int i = warp; i < tile; i += tile_rows)
        if (row + i < rows && col + lane < cols)
            shared.x[i][lane] = narrow<To>(from[(row + i) * cols + col + lane]);
    __syncthreads();
    for (int j = warp; j < tile; j += tile_rows)
        if (col + j < cols && row + lane < rows) to[(col + j) * rows + row + lane] = shared.x[lane][j];
}

/// kernel.operator()<n>(grid, packs of a block) for `size` numbers: n is as large as 16 bytes of the widest
/// type and the addresses allow, or 1.
template <class... T, class F>
void for_grid(std::int64_t size, const F& start, T*... addresses) {
    constexpr int n = pack_size<std::remove_const_t<T>...>;
    const bool packs = (... && (reinterpret_cast<std::uintptr_t>(addresses) % (n * sizeof(T)) == 0));
    const std::int64_t count = packs ? cuda::ceil_div(size, n) : size,
                       of_block = std::min(count, packs_per_block(count));
    const cuda::Grid grid{cuda::ceil_div(count, of_block), block_threads(of_block)};
    packs ? start.template operator()<n>(grid, of_block) : start.template operator()<1>(grid, of_block);
}

template <class From, class To>
void copy_elements(Tensor from, Tensor to) {
    for_grid(
        from.size(),
        [&]<int n>(const cuda::Grid& grid, std::int64_t of_block) {
            cuda::launch(grid, copy_packs<n, From, To>, from.data<From>(), to.data<To>(), from.size(),
                         of_block);
        },
        from.data<const From>(), to.data<To>());
}

}  // namespace

void zero(Tensor x) {
    zero({&x, 1});
}

void zero(std::span<const Tensor> tensors) {
    count_kernel(__func__);
    constexpr auto word = static_cast<std::int64_t>(sizeof(Word));
    std::int64_t all = 0, most = 1;
    std::vector<Memory> memories;
    for (const Tensor& x : tensors) {
        if (x.empty()) continue;
        std::byte* begin = x.data<std::byte>();
        const auto before = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(begin) % sizeof(Word));
        memories.push_back({begin - before, begin, begin + x.bytes(), 0});
        all += cuda::ceil_div(static_cast<std::int64_t>(x.bytes()), word);
    }
    ItemList<Memory> items;
    for (Memory& memory : memories) {
        const std::int64_t words = cuda::ceil_div(memory.end - memory.first, word);
        memory.words_of_block = std::min(words, packs_per_block(all));
        most = std::max(most, memory.words_of_block);
        items.add(memory, cuda::ceil_div(words, memory.words_of_block));
    }
    items.for_launches([&](const auto& launched, std::int64_t blocks) {
        cuda::launch({blocks, block_threads(most)}, zero_memories<std::decay_t<decltype(launched)>>,
                     launched);
    });
}

void fill(Tensor x, double value) {
    count_kernel(__func__);
    if (x.empty()) return;
    dispatch(x.dtype(), [&]<class T>() {
        for_grid(
            x.size(),
            [&]<int n>(const cuda::Grid& grid, std::int64_t of_block) {
                cuda::launch(grid, fill_packs<n, T>, x.data<T>(), x.size(), of_block, value);
            },
            x.data<T>());
    });
}

void copy(Tensor from, Tensor to) {
    count_kernel(__func__);
    check_shape("destination of a copy", to, from.shape());
    if (from.empty()) return;
    if (from.dtype() != to.dtype())
        return dispatch(from.dtype(), [&]<class From>() {
            dispatch(to.dtype(), [&]<class To>() {
                if constexpr (!std::is_same_v<From, To>) copy_elements<From, To>(from, to);
            });
        });
    switch (size_of(from.dtype())) {
        case 8:
            return copy_elements<std::uint64_t, std::uint64_t>(from, to);
        case 4:
            return copy_elements<std::uint32_t, std::uint32_t>(from, to);
        case 2:
            return copy_elements<std::uint16_t, std::uint16_t>(from, to);
        default:
            return copy_elements<std::uint8_t, std::uint8_t>(from, to);
    }
}

void add(Tensor from, Tensor to, double alpha) {
    count_kernel(__func__);
    check_shape("destination of a sum", to, from.shape());
    if (from.empty()) return;
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            for_grid(
                from.size(),
                [&]<int n>(const cuda::Grid& grid, std::int64_t of_block) {
                    cuda::launch(grid, add_packs<n, From, To>, from.data<From>(), to.data<To>(), from.size(),
                                 of_block, static_cast<Sum<From, To>>(alpha));
                },
                from.data<const From>(), to.data<To>());
        });
    });
}

void transpose(Tensor from, Tensor to) {
    count_kernel(__func__);
    check_matrix("transposed tensor", from);
    const std::int64_t rows = from.dim(0), cols = from.dim(1);
    check_shape("transpose", to, {cols, rows});
    if (from.empty()) return;
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            cuda::launch({cuda::ceil_div(rows, tile) * cuda::ceil_div(cols, tile), tile * tile_rows,
                          sizeof(TransposeTile<To>)},
                         transpose_tile<From, To>, from.data<From>(), to.data<To>(), rows, cols);
        });
    });
}

}  // namespace switchyard::kernels

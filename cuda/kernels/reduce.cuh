// Reductions of many rectangles to one value each, in two launches: each block combines the numbers of its
// tile to a partial result, then a block an item combines the partial results. Tiles depend on shapes alone;
// a thread takes every 256th pack of a tile, then lanes and warps are combined by halves: the bits depend on
// neither the GPU nor on what else is in the call. A launch has fewer threads if no tile has work for 256,
// which changes nothing: the others would bring the start value.
//
// An operation is a type with Value (of partial results), Result, start(), add(value, number, flat index),
// combine(a, b) and result(value). add() is called for the element types that the operation names in
// with_type().
#pragma once

#include "cuda/kernels/items.cuh"
#include "cuda/kernels/row_places.cuh"
#include "cuda/workspace.hpp"

namespace switchyard::kernels {

/// A rectangle to be reduced. `packs`: wide accesses are allowed.
struct ReducedRows {
    RowPlaces rows;
    Tiles tiles;
    std::int64_t width = 0;  // of a row, in elements
    DType dtype{};
    bool packs = false;
};

/// 32 KiB of any type.
inline ReducedRows reduced_rows(const RowPart& part) {
    const bool contiguous = is_contiguous(part);
    const Extent extent(part, contiguous);
    const auto size = static_cast<int>(size_of(part.matrix.dtype()));
    ReducedRows reduced;
    reduced.rows = RowPlaces(part);
    reduced.dtype = part.matrix.dtype();
    reduced.width = extent.width;
    reduced.packs = reduced.rows.aligned(16, contiguous);
    constexpr std::int64_t threads = 256, packs_per_thread = 8;
    reduced.tiles = Tiles(extent.rows, reduced.packs ? cuda::ceil_div(extent.width, 16 / size) : extent.width,
                          threads * packs_per_thread * (reduced.packs ? 1 : 16 / size));
    return reduced;
}

/// Values of the warps of a block.
template <class Value>
struct WarpValues {
    Value of_warp[256 / cuda::warp_size];
};

/// Combines the values of all threads of the block, for thread 0.
template <class Operation>
__device__ typename Operation::Value combine_block(typename Operation::Value value) {
    value = cuda::combine_lanes<Operation>(value, cuda::warp_size);
    const int warps = static_cast<int>(blockDim.x) / cuda::warp_size, thread = static_cast<int>(threadIdx.x);
    if (warps == 1) return value;
    auto& shared = cuda::block_memory<WarpValues<typename Operation::Value>>();
    if (thread % cuda::warp_size == 0) shared.of_warp[thread / cuda::warp_size] = value;
    __syncthreads();
    if (thread == 0)
        for (int warp = 1; warp < warps; ++warp) value = Operation::combine(value, shared.of_warp[warp]);
    return value;
}

template <class Operation, class T, int n>
__device__ typename Operation::Value reduce_tile(const ReducedRows& item, unsigned block) {
    auto value = Operation::start();
    item.tiles.for_packs(block, [&](std::int64_t row, std::int64_t pack) {
        const std::int64_t at = pack * n;
        const int valid = static_cast<int>(std::min<std::int64_t>(n, item.width - at));
        const Pack<T, n> x = load_pack<n>(item.rows.row<const T>(row) + at, valid);
        for (int i = 0; i < n; ++i)
            if (i < valid) value = Operation::add(value, x.x[i], row * item.width + at + i);
    });
    return value;
}

/// partial (blocks of all launches) <- the value of each block.
template <class Operation, class Items>
__global__ void reduce_tiles(const Items __grid_constant__ items, typename Operation::Value* partial) {
    const int index = items.index();
    const ReducedRows& item = items.item[index];
    const unsigned block = blockIdx.x - items.first_block[index];
    auto value = Operation::start();
    Operation::with_type(item.dtype, [&]<class T>() {
        value = item.packs ? reduce_tile<Operation, T, pack_size<T>>(item, block)
                           : reduce_tile<Operation, T, 1>(item, block);
    });
    value = combine_block<Operation>(value);
    if (threadIdx.x == 0) partial[items.blocks_before + blockIdx.x] = value;
}

/// results (items of all launches) <- the partial results of each item together; block i for item i.
template <class Operation, class Items>
__global__ void combine_partial(const Items __grid_constant__ items, const typename Operation::Value* partial,
                                typename Operation::Result* results) {
    const std::int64_t begin = items.blocks_before + items.first_block[blockIdx.x],
                       end = items.blocks_before + items.first_block[blockIdx.x + 1];
    auto value = Operation::start();
    for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
        value = Operation::combine(value, partial[i]);
    value = combine_block<Operation>(value);
    if (threadIdx.x == 0) results[items.items_before + blockIdx.x] = Operation::result(value);
}

/// results (parts.size()) <- each rectangle reduced; Operation::start() for one without elements.
template <class Operation>
void reduce(std::span<const RowPart> parts, typename Operation::Result* results) {
    using Value = typename Operation::Value;
    ItemList<ReducedRows> list;
    list.reserve(parts.size());
    std::int64_t most = 0, most_partial = 0;
    for (const RowPart& part : parts) {
        const ReducedRows item = reduced_rows(part);
        list.add(item, item.tiles.blocks());
        most = std::max(most, item.tiles.packs_of_block());
        most_partial = std::max(most_partial, item.tiles.blocks());
    }
    const auto grid = [](std::int64_t blocks, std::int64_t work) {
        return cuda::Grid{blocks, block_threads(std::max<std::int64_t>(work, 1)), sizeof(WarpValues<Value>)};
    };
    auto* partial = cuda::workspace_of<Value>(std::max<std::int64_t>(list.num_blocks(), 1));
    list.for_launches([&](const auto& items, std::int64_t blocks) {
        using Items = std::decay_t<decltype(items)>;
        cuda::launch(grid(blocks, most), reduce_tiles<Operation, Items>, items, partial);
        cuda::launch(grid(items.count, most_partial), combine_partial<Operation, Items>, items, partial,
                     results);
    });
}

}  // namespace switchyard::kernels

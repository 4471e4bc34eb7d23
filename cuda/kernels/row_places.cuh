// Where the rows of a rectangle lie, for kernels. The host cannot read lists of rows, so a kernel that finds
// an entry outside the matrix stops, and with it the run: it would read or destroy memory of others.
#pragma once

#include "cuda/kernels/items.cuh"
#include "cuda/kernels/packs.cuh"
#include "kernels/checks/rows.hpp"

namespace switchyard::kernels {

struct RowPlaces {
    std::byte* first = nullptr;  // column 0 of the rectangle in row 0 of the matrix, or in row `rows.first`
    const std::int32_t* list = nullptr;  // null: the rows are a range
    std::int64_t stride = 0;             // in bytes
    std::int32_t rows = 0;               // of the matrix

    RowPlaces() = default;
    explicit RowPlaces(const RowPart& part) {
        if (part.matrix.empty()) return;
        const auto element = static_cast<std::int64_t>(size_of(part.matrix.dtype()));
        list = part.rows.list.empty() ? nullptr : part.rows.list.data<std::int32_t>();
        stride = part.matrix.dim(1) * element;
        first = part.matrix.data<std::byte>() + (list ? 0 : part.rows.first) * stride + part.column * element;
        rows = static_cast<std::int32_t>(std::min<std::int64_t>(part.matrix.dim(0), 0x7FFFFFFF));
    }

    /// True if each row begins at a multiple of `bytes`.
    bool aligned(std::size_t bytes, bool one_row) const {
        return (reinterpret_cast<std::uintptr_t>(first) |
                (one_row ? 0 : static_cast<std::uintptr_t>(stride))) %
                   bytes ==
               0;
    }
    template <class T>
    __device__ T* row(std::int64_t i) const {
        if (list) {
            i = list[i];
            if (i < 0 || i >= rows) __trap();
        }
        return reinterpret_cast<T*>(first + i * stride);
    }
};

/// A whole tensor as one row.
inline RowPart one_row(Tensor x) {
    const std::int64_t size = x.empty() ? 0 : x.size();
    return {Tensor(x.raw(), x.dtype(), {1, size}), Rows::range(0, 1), 0, size};
}

/// The loop over a rectangle: one row if all its parts are contiguous.
struct Extent {
    std::int64_t rows = 0, width = 0;  // in elements
    Extent(const RowPart& part, bool contiguous)
        : rows(contiguous ? 1 : part.rows.count),
          width(contiguous ? part.rows.count * part.width : part.width) {}
};

/// Divides jobs, which know the rows and the width of their `tiles`, among blocks: start(jobs of a launch,
/// grid).
template <class Job, class Start>
void launch_jobs(std::vector<Job>& jobs, const Start& start) {
    std::int64_t all = 0, most = 0;
    for (const Job& job : jobs) all += job.tiles.rows * job.tiles.width;
    ItemList<Job> items;
    for (Job& job : jobs) {
        job.tiles = Tiles(job.tiles.rows, job.tiles.width, packs_per_block(all));
        most = std::max(most, job.tiles.packs_of_block());
        items.add(job, job.tiles.blocks());
    }
    items.for_launches([&](const auto& launched, std::int64_t blocks) {
        start(launched, cuda::Grid{blocks, block_threads(most)});
    });
}

}  // namespace switchyard::kernels

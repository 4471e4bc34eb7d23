// Histograms in two launches: each block counts its tile, then a block an item adds the counts of its tiles.
// Thread i counts the elements with byte i, so that nothing is added by two threads and the counts need no
// order. An element is compared 256 times, which a step that happens every few hundred does not feel.
#include "core/calls.hpp"
#include "cuda/kernels/items.cuh"
#include "cuda/kernels/row_places.cuh"
#include "cuda/workspace.hpp"
#include "kernels/checks/magnitudes.hpp"
#include "kernels/magnitudes.hpp"

namespace switchyard::kernels {
namespace {

constexpr int threads = static_cast<int>(magnitude_bins);

__device__ std::uint64_t magnitude_of(float x) {
    return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;
}
__device__ std::uint64_t magnitude_of(double x) {
    return std::bit_cast<std::uint64_t>(x) & 0x7FFFFFFFFFFFFFFFull;
}

/// f with the element type.
template <class F>
__device__ void with_real(DType dtype, const F& f) {
    if (dtype == DType::f64)
        f.template operator()<double>();
    else
        f.template operator()<float>();
}

/// A rectangle as one run of rows * width elements, of which a block takes some tiles.
struct Counted {
    static constexpr int tile = 4096;
    RowPlaces places;
    std::int64_t width = 0, elements = 0, of_block = 0;
    std::int64_t blocks() const { return cuda::ceil_div(elements, of_block); }
};
/// So many blocks a call keep a GPU busy, and their counts take 8 MiB.
constexpr std::int64_t most_blocks = 8192;

/// The bytes of a tile; 256: of an element with other higher bytes.
struct TileBytes {
    std::uint16_t byte[Counted::tile];
};

/// partial (blocks of all launches, 256) <- the counts of each tile.
template <class T, class Items>
__global__ void count_tiles(const Items __grid_constant__ items, const std::int64_t* found, int shift,
                            std::uint32_t* partial) {
    const int index = items.index(), thread = static_cast<int>(threadIdx.x);
    const Counted& item = items.item[index];
    const std::int64_t begin = std::int64_t{blockIdx.x - items.first_block[index]} * item.of_block,
                       end = std::min(item.elements, begin + item.of_block);
    const auto higher = static_cast<std::uint64_t>(found[2 * (items.items_before + index)]);
    auto& tile = cuda::block_memory<TileBytes>();
    std::uint32_t count = 0;
    for (std::int64_t first = begin; first < end; first += Counted::tile) {
        const auto valid = static_cast<int>(std::min(end - first, std::int64_t{Counted::tile}));
        for (int i = thread; i < valid; i += threads) {
            const std::int64_t row = (first + i) / item.width, column = (first + i) - row * item.width;
            const std::uint64_t bytes = magnitude_of(item.places.template row<const T>(row)[column]) >> shift;
            tile.byte[i] = static_cast<std::uint16_t>(bytes >> 8 == higher ? bytes & 255 : 256);
        }
        __syncthreads();
        for (int i = 0; i < valid; ++i) count += tile.byte[i] == thread ? 1u : 0u;
        __syncthreads();  // the next tile takes its place
    }
    partial[(items.blocks_before + blockIdx.x) * magnitude_bins + thread] = count;
}

/// counts (items of all launches, 256) <- the sum over the tiles of each item; block i for item i.
template <class Items>
__global__ void add_tiles(const Items __grid_constant__ items, const std::uint32_t* partial, double* counts) {
    const std::int64_t begin = items.blocks_before + items.first_block[blockIdx.x],
                       end = items.blocks_before + items.first_block[blockIdx.x + 1];
    std::int64_t sum = 0;
    for (std::int64_t block = begin; block < end; ++block)
        sum += partial[block * magnitude_bins + threadIdx.x];
    counts[(items.items_before + blockIdx.x) * magnitude_bins + threadIdx.x] = static_cast<double>(sum);
}

/// Thread i for item i.
__global__ void append_bytes(const double* counts, std::int64_t items, std::int64_t* found) {
    const std::int64_t item = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (item >= items) return;
    const double* count = counts + item * magnitude_bins;
    std::int64_t byte = 0, rank = found[2 * item + 1];
    for (; byte < magnitude_bins - 1 && rank >= static_cast<std::int64_t>(count[byte]); ++byte)
        rank -= static_cast<std::int64_t>(count[byte]);
    found[2 * item] = found[2 * item] << 8 | byte;
    found[2 * item + 1] = rank;
}

/// A rectangle of values with its keys. `number`: of its limit.
struct Job {
    RowPlaces values, keys;
    DType value_type{}, key_type{};
    std::int64_t number = 0;
    Tiles tiles;
};

template <class Items>
__global__ void drop_jobs(const Items __grid_constant__ items, const std::int64_t* limits) {
    const int index = items.index();
    const Job& job = items.item[index];
    const auto limit = static_cast<std::uint64_t>(limits[2 * job.number]);
    with_real(job.value_type, [&]<class T>() {
        with_real(job.key_type, [&]<class Key>() {
            job.tiles.for_packs(blockIdx.x - items.first_block[index],
                                [&](std::int64_t row, std::int64_t column) {
                                    if (magnitude_of(job.keys.template row<const Key>(row)[column]) <= limit)
                                        job.values.template row<T>(row)[column] = 0;
                                });
        });
    });
}

}  // namespace

void magnitude_histogram(std::span<const RowPart> parts, int byte, Tensor found, Tensor counts) {
    count_kernel(__func__);
    const DType dtype = check_histogram(parts, byte, found, counts);
    const int shift = 8 * (magnitude_bytes(dtype) - 1 - byte);
    std::int64_t all = 0;
    for (const RowPart& part : parts) all += part.rows.count * part.width;
    const std::int64_t of_block =
        Counted::tile * std::max<std::int64_t>(1, cuda::ceil_div(all, Counted::tile * most_blocks));
    ItemList<Counted> list;
    for (const RowPart& part : parts) {
        const Counted item{RowPlaces(part), part.width, part.rows.count * part.width, of_block};
        list.add(item, item.blocks());
    }
    auto* partial =
        cuda::workspace_of<std::uint32_t>(std::max<std::int64_t>(list.num_blocks(), 1) * magnitude_bins);
    list.for_launches([&](const auto& items, std::int64_t blocks) {
        using Items = std::decay_t<decltype(items)>;
        const cuda::Grid grid{blocks, threads, sizeof(TileBytes)};
        if (dtype == DType::f64)
            cuda::launch(grid, count_tiles<double, Items>, items, found.data<std::int64_t>(), shift, partial);
        else
            cuda::launch(grid, count_tiles<float, Items>, items, found.data<std::int64_t>(), shift, partial);
        cuda::launch({items.count, threads}, add_tiles<Items>, items, partial, counts.data<double>());
    });
}

void select_byte(Tensor counts, Tensor found) {
    count_kernel(__func__);
    check_selection(counts, found);
    const std::int64_t items = found.dim(0);
    const int size = block_threads(std::max<std::int64_t>(items, 1));
    cuda::launch({cuda::ceil_div(items, size), size}, append_bytes, counts.data<double>(), items,
                 found.data<std::int64_t>());
}

void drop_up_to(std::span<const Dropped> dropped, Tensor limits) {
    count_kernel(__func__);
    check_dropped(dropped, limits);
    std::vector<Job> jobs;
    for (const Dropped& x : dropped) {
        Job& job = jobs.emplace_back();
        job.values = RowPlaces(x.values), job.keys = RowPlaces(x.keys);
        job.value_type = x.values.matrix.dtype(), job.key_type = x.keys.matrix.dtype();
        job.number = static_cast<std::int64_t>(jobs.size()) - 1;
        job.tiles.rows = x.values.rows.count, job.tiles.width = x.values.width;
    }
    launch_jobs(jobs, [&](const auto& launched, const cuda::Grid& grid) {
        cuda::launch(grid, drop_jobs<std::decay_t<decltype(launched)>>, launched,
                     limits.data<std::int64_t>());
    });
}

}  // namespace switchyard::kernels

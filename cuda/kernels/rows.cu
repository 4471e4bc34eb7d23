// Rows of many matrices in one launch: a block takes whole rows or a piece of a row, a thread neighbouring
// numbers of up to 16 bytes. Copies of the same type are made by the size of an element, whatever it means.
#include "core/calls.hpp"
#include "cuda/kernels/row_places.cuh"
#include "kernels/rows.hpp"

namespace switchyard::kernels {
namespace {

/// A task with its addresses. `packs`: wide accesses are allowed.
struct Job {
    RowPlaces to, from, minus;
    Tiles tiles;
    std::int64_t width = 0;  // of a row, in elements
    DType to_type{}, from_type{};
    bool copies = false, subtracts = false, packs = false;

    /// Numbers of a pack, if `packs`.
    int pack() const { return 16 / static_cast<int>(std::max(size_of(to_type), size_of(from_type))); }
};

/// f(offset in a row, valid, row) for the packs of n elements of this block.
template <int n, class F>
__device__ void for_packs(const Job& job, unsigned block, const F& f) {
    job.tiles.for_packs(block, [&](std::int64_t row, std::int64_t pack) {
        f(row, pack * n, static_cast<int>(std::min<std::int64_t>(n, job.width - pack * n)));
    });
}

template <class To, class From, int n>
__device__ void copy_block(const Job& job, unsigned block) {
    for_packs<n>(job, block, [&](std::int64_t row, std::int64_t at, int valid) {
        Pack<From, n> x{};
        if (job.copies) x = load_pack<n>(job.from.row<From>(row) + at, valid);
        store_pack(narrow_pack<To>(x), job.to.row<To>(row) + at, valid);
    });
}

template <class To, class From, int n>
__device__ void subtract_block(const Job& job, unsigned block) {
    using Sum = std::conditional_t<std::is_same_v<From, double>, double, Wide<To>>;
    for_packs<n>(job, block, [&](std::int64_t row, std::int64_t at, int valid) {
        const auto x = load_pack<n>(job.from.row<From>(row) + at, valid),
                   y = load_pack<n>(job.minus.row<From>(row) + at, valid);
        Pack<To, n> z;
        for (int i = 0; i < n; ++i)
            z.x[i] = narrow<To>(static_cast<Sum>(wide(x.x[i])) - static_cast<Sum>(wide(y.x[i])));
        store_pack(z, job.to.row<To>(row) + at, valid);
    });
}

template <class To, class From>
__device__ void run_block(const Job& job, unsigned block) {
    constexpr int n = pack_size<To, From>;
    if constexpr (!std::is_integral_v<To>)
        if (job.subtracts)
            return job.packs ? subtract_block<To, From, n>(job, block)
                             : subtract_block<To, From, 1>(job, block);
    if constexpr (std::is_integral_v<To> || !std::is_same_v<To, From>)
        job.packs ? copy_block<To, From, n>(job, block) : copy_block<To, From, 1>(job, block);
}

template <class Jobs>
__global__ void run_jobs(const Jobs __grid_constant__ jobs) {
    const int index = jobs.index();
    const Job& job = jobs.item[index];
    const unsigned block = blockIdx.x - jobs.first_block[index];
    if (job.subtracts || job.to_type != job.from_type)
        return with_number(job.to_type, [&]<class To>() {
            with_number(job.from_type, [&]<class From>() { run_block<To, From>(job, block); });
        });
    switch (job.to_type) {
        case DType::u8:
            return run_block<std::uint8_t, std::uint8_t>(job, block);
        case DType::bf16:
        case DType::i16:
            return run_block<std::uint16_t, std::uint16_t>(job, block);
        case DType::f32:
        case DType::i32:
            return run_block<std::uint32_t, std::uint32_t>(job, block);
        default:
            return run_block<std::uint64_t, std::uint64_t>(job, block);
    }
}

/// Everything but the division into tiles.
Job job_of(const RowTask& task) {
    check_task(task);
    Job job;
    job.to = RowPlaces(task.to), job.from = RowPlaces(task.from), job.minus = RowPlaces(task.minus);
    job.copies = task.from.matrix.shape().rank() > 0, job.subtracts = task.minus.matrix.shape().rank() > 0;
    job.to_type = task.to.matrix.dtype();
    job.from_type = job.copies ? task.from.matrix.dtype() : job.to_type;
    const bool contiguous = is_contiguous(task.to) && (!job.copies || is_contiguous(task.from)) &&
                            (!job.subtracts || is_contiguous(task.minus));
    const Extent extent(task.to, contiguous);
    const auto n = static_cast<std::size_t>(job.pack());
    job.packs = job.to.aligned(n * size_of(job.to_type), contiguous) &&
                job.from.aligned(n * size_of(job.from_type), contiguous) &&
                job.minus.aligned(n * size_of(job.from_type), contiguous);
    job.width = extent.width;
    job.tiles.rows = extent.rows;
    job.tiles.width = job.packs ? cuda::ceil_div(extent.width, job.pack()) : extent.width;
    return job;
}

}  // namespace

void run_rows(std::span<const RowTask> tasks) {
    count_kernel(__func__);
    std::vector<Job> jobs;
    for (const RowTask& task : tasks) jobs.push_back(job_of(task));
    launch_jobs(jobs, [](const auto& launched, const cuda::Grid& grid) {
        cuda::launch(grid, run_jobs<std::decay_t<decltype(launched)>>, launched);
    });
}

}  // namespace switchyard::kernels

// Sums of parts of rows, as an ordered reduction leaves them to each rank, and sums of squares of rectangles.
#include "core/calls.hpp"
#include "cuda/kernels/reduce.cuh"
#include "kernels/rows.hpp"

namespace switchyard::kernels {
namespace {

/// A sum with its addresses. `packs`: wide accesses are allowed.
struct Job {
    RowPlaces to;
    const std::byte* parts = nullptr;  // where the rectangle begins in part 0
    Tiles tiles;
    std::int64_t width = 0;
    DType to_type{};
    bool packs = false;
};

/// The parts of all sums of a call.
struct Parts {
    std::int64_t count = 0, length = 0, own = 0;
};

/// Parts are added in order, each in the type of the sum. Loads of later parts need not wait for the sum.
template <class To, class From, int n>
__device__ void sum_block(const Job& job, const Parts& parts, unsigned block) {
    job.tiles.for_packs(block, [&](std::int64_t row, std::int64_t pack) {
        const std::int64_t at = pack * n;
        const int valid = static_cast<int>(std::min<std::int64_t>(n, job.width - at));
        To* to = job.to.row<To>(row) + at;
        const From* from = reinterpret_cast<const From*>(job.parts) + row * job.width + at;
        const Pack<From, n> own = narrow_pack<From>(load_pack<n>(static_cast<const To*>(to), valid));
        Wide<To> sum[n] = {};
        for (std::int64_t p = 0; p < parts.count; ++p) {
            const Pack<From, n> x = p == parts.own ? own : load_pack<n>(from + p * parts.length, valid);
            for (int i = 0; i < n; ++i) sum[i] += static_cast<Wide<To>>(wide(x.x[i]));
        }
        Pack<To, n> rounded;
        for (int i = 0; i < n; ++i) rounded.x[i] = narrow<To>(sum[i]);
        store_pack(rounded, to, valid);
    });
}

template <class From, class Jobs>
__global__ void sum_jobs(const Jobs __grid_constant__ jobs, Parts parts) {
    const int index = jobs.index();
    const Job& job = jobs.item[index];
    const unsigned block = blockIdx.x - jobs.first_block[index];
    with_number(job.to_type, [&]<class To>() {
        job.packs ? sum_block<To, From, pack_size<To, From>>(job, parts, block)
                  : sum_block<To, From, 1>(job, parts, block);
    });
}

struct Squares {
    using Value = double;
    using Result = double;
    __device__ static Value start() { return 0; }
    template <class T>
    __device__ static Value add(Value sum, T x, std::int64_t) {
        const double value = wide(x);
        return sum + value * value;
    }
    __device__ static Value combine(Value a, Value b) { return a + b; }
    __device__ static Result result(Value sum) { return sum; }
    template <class F>
    __device__ static void with_type(DType dtype, const F& f) {
        with_number(dtype, f);
    }
};

}  // namespace

void sum_parts(Tensor parts, std::int64_t own, std::span<const RowSum> sums) {
    count_kernel(__func__);
    check_parts(parts, own);
    const std::size_t part_element = size_of(parts.dtype());
    std::vector<Job> jobs;
    for (const RowSum& sum : sums) {
        check_sum(parts, sum);
        const bool contiguous = is_contiguous(sum.to);
        const Extent extent(sum.to, contiguous);
        Job& job = jobs.emplace_back();
        job.to = RowPlaces(sum.to), job.to_type = sum.to.matrix.dtype(), job.width = extent.width;
        job.parts = parts.data<std::byte>() + sum.offset * static_cast<std::int64_t>(part_element);
        const std::size_t to_element = size_of(job.to_type), n = 16 / std::max(part_element, to_element);
        const auto part_bytes = static_cast<std::uintptr_t>(parts.dim(1)) * part_element,
                   row_bytes = contiguous ? 0 : static_cast<std::uintptr_t>(extent.width) * part_element;
        job.packs =
            job.to.aligned(n * to_element, contiguous) &&
            (reinterpret_cast<std::uintptr_t>(job.parts) | part_bytes | row_bytes) % (n * part_element) == 0;
        job.tiles.width =
            job.packs ? cuda::ceil_div(extent.width, static_cast<std::int64_t>(n)) : extent.width;
        job.tiles.rows = extent.rows;
    }
    launch_jobs(jobs, [&](const auto& launched, const cuda::Grid& grid) {
        dispatch(parts.dtype(), [&]<class From>() {
            cuda::launch(grid, sum_jobs<From, std::decay_t<decltype(launched)>>, launched,
                         Parts{parts.dim(0), parts.dim(1), own});
        });
    });
}

/// Segments need not stay in a cache, and collectives of less than some ten megabytes leave a network idle.
std::int64_t segment_elements() {
    return std::int64_t{1} << 24;
}

void squared_norms(std::span<const RowPart> parts, Tensor sums) {
    count_kernel(__func__);
    check("sums of squares", sums, DType::f64, {static_cast<std::int64_t>(parts.size())});
    for (const RowPart& part : parts) {
        check_part(part);
        check_numbers(part.matrix);
    }
    reduce<Squares>(parts, sums.data<double>());
}

}  // namespace switchyard::kernels

// One pass over master, gradient and value, for all parameters in one launch. A row's factor is formed in f64
// and rounded to the master's type. Whether the gradients are finite is read on the device.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "cuda/kernels/row_places.cuh"
#include "kernels/checks/descent.hpp"

namespace switchyard::kernels {
namespace {

/// A parameter with its addresses. `packs`: wide accesses are allowed.
struct Descent {
    void* master = nullptr;
    RowPlaces gradient, value;
    const void* scale = nullptr;
    const double* factor = nullptr;
    Tiles tiles;
    std::int64_t width = 0;
    double rate = 0, decay = 0;
    DType value_type{};
    bool packs = false;
};

/// `value` may be `master`: it gets the same bits.
template <class T, class Value, int n>
__device__ void descend(const Descent& job, unsigned block) {
    job.tiles.for_packs(block, [&](std::int64_t row, std::int64_t pack) {
        const std::int64_t column = pack * n;
        const int valid = static_cast<int>(std::min<std::int64_t>(n, job.width - column));
        T* master_at = static_cast<T*>(job.master) + row * job.width + column;
        auto master = load_pack<n>(static_cast<const T*>(master_at), valid);
        const auto gradient = load_pack<n>(job.gradient.row<const T>(row) + column, valid);
        const double scale = job.scale ? static_cast<double>(static_cast<const T*>(job.scale)[row]) : 1;
        const T step = static_cast<T>(job.rate * *job.factor * scale), decay = static_cast<T>(job.decay);
        Pack<Value, n> value;
        for (int i = 0; i < n; ++i) {
            master.x[i] = master.x[i] - (step * gradient.x[i] + decay * master.x[i]);
            value.x[i] = narrow<Value>(master.x[i]);
        }
        store_pack(master, master_at, valid);
        store_pack(value, job.value.row<Value>(row) + column, valid);
    });
}

template <class T, class Value>
__device__ void descend_job(const Descent& job, unsigned block) {
    job.packs ? descend<T, Value, pack_size<T>>(job, block) : descend<T, Value, 1>(job, block);
}

template <class Jobs>
__global__ void descend_jobs(const Jobs __grid_constant__ jobs, const double* clip) {
    if (clip[1] == 0) return;
    const int index = jobs.index();
    const Descent& job = jobs.item[index];
    const unsigned block = blockIdx.x - jobs.first_block[index];
    with_number(job.value_type, [&]<class Value>() { descend_job<Wide<Value>, Value>(job, block); });
}

/// Everything but the division into tiles.
Descent job_of(const ScaledRows& rows) {
    check_rows(rows);
    Descent job;
    job.master = rows.master.raw();
    job.gradient = RowPlaces(part_of(rows, rows.gradient)), job.value = RowPlaces(part_of(rows, rows.value));
    job.scale = rows.scale.empty() ? nullptr : rows.scale.raw(), job.factor = rows.factor.data<double>();
    job.rate = rows.lr * rows.alpha, job.decay = rows.lr * rows.weight_decay;
    job.value_type = rows.value.dtype(), job.width = rows.master.dim(1);
    const std::size_t element = size_of(rows.master.dtype()), n = 16 / element;
    const auto places =
        reinterpret_cast<std::uintptr_t>(job.master) | static_cast<std::uintptr_t>(job.width) * element;
    job.packs = places % 16 == 0 && job.gradient.aligned(16, false) &&
                job.value.aligned(n * size_of(job.value_type), false);
    job.tiles.rows = rows.master.dim(0);
    job.tiles.width = job.packs ? cuda::ceil_div(job.width, static_cast<std::int64_t>(n)) : job.width;
    return job;
}

struct LimitGrowth {
    const double* squares;
    double growth;
    const double* clip;
    double *previous, *factors;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        if (clip[1] == 0) return;
        const double norm = sqrt(squares[at]), limit = growth * previous[at];
        const bool limited = limit > 0 && norm > limit;
        factors[at] = limited ? limit / norm : 1;
        previous[at] = limited ? limit : norm;
    }
};

}  // namespace

void scaled_descent(std::span<const ScaledRows> parameters, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    std::vector<Descent> jobs;
    for (const ScaledRows& rows : parameters) jobs.push_back(job_of(rows));
    const auto* clip_data = clip.data<const double>();
    launch_jobs(jobs, [&](const auto& launched, const cuda::Grid& grid) {
        cuda::launch(grid, descend_jobs<std::decay_t<decltype(launched)>>, launched, clip_data);
    });
}

void limit_growth(Tensor squares, double growth, Tensor clip, Tensor previous, Tensor factors) {
    count_kernel(__func__);
    check_growth(squares, clip, previous, factors);
    for_elements<double>(squares.size(), false,
                         LimitGrowth{squares.data<double>(), growth, clip.data<double>(),
                                     previous.data<double>(), factors.data<double>()});
}

}  // namespace switchyard::kernels

// Two launches for all parameters: the first advances step counters and turns each into bias corrections in
// f64, the second updates rows in one pass over master, moments, gradient and value. Arithmetic is in the
// type of the state. Both read on the device whether the gradients are finite. Moments that are codes have a
// third one (codes.cu).
#include "core/calls.hpp"
#include "cuda/kernels/adamw/codes.cuh"
#include "cuda/kernels/row_places.cuh"
#include "cuda/workspace.hpp"
#include "kernels/adamw.hpp"

namespace switchyard::kernels {
namespace {

/// The step counters of a parameter.
struct Counters {
    std::int32_t* step = nullptr;
    std::int64_t count = 0;
    double beta1 = 0, beta2 = 0;
    Corrections* corrections = nullptr;  // one for each counter
};

constexpr int counters_of_block = 256;

template <class Items>
__global__ void advance_steps(const Items __grid_constant__ items, const double* clip) {
    if (clip[1] == 0) return;
    const int index = items.index();
    const Counters& counters = items.item[index];
    const std::int64_t first = std::int64_t{blockIdx.x - items.first_block[index]} * counters_of_block;
    for (std::int64_t i = first + threadIdx.x; i < std::min(first + counters_of_block, counters.count);
         i += blockDim.x) {
        const double step = ++counters.step[i];
        counters.corrections[i] = {1 / (1 - pow(counters.beta1, step)), 1 / (1 - pow(counters.beta2, step))};
    }
}

/// A parameter with its addresses. The state is contiguous. `packs`: wide accesses are allowed.
struct Job {
    void *master = nullptr, *m = nullptr, *v = nullptr;
    RowPlaces gradient, value;
    const std::int32_t* frozen = nullptr;
    const Corrections* corrections = nullptr;
    Tiles tiles;
    std::int64_t width = 0;
    AdamWSettings settings;
    DType value_type{};
    bool one_step = false, packs = false;
};

/// What a row's update multiplies with, rounded from f64. A frozen row has no gradient and does not decay.
template <class T>
struct Factors {
    T clip, beta1, one_minus_beta1, beta2, one_minus_beta2, lr, decay, eps, m_correction, v_correction;

    __device__ Factors(const AdamWSettings& s, double c, Corrections correction, bool frozen)
        : clip(static_cast<T>(frozen ? 0 : c)),
          beta1(static_cast<T>(s.beta1)),
          one_minus_beta1(static_cast<T>(1 - s.beta1)),
          beta2(static_cast<T>(s.beta2)),
          one_minus_beta2(static_cast<T>(1 - s.beta2)),
          lr(static_cast<T>(s.lr)),
          decay(static_cast<T>(frozen ? 0 : s.weight_decay)),
          eps(static_cast<T>(s.eps)),
          m_correction(static_cast<T>(correction.m)),
          v_correction(static_cast<T>(correction.v)) {}
};

/// `value` may be `master`: it gets the same bits. Without a master it gets the direction.
template <class T, class Value, int n>
__device__ void update_block(const Job& job, double clip, unsigned block) {
    job.tiles.for_packs(block, [&](std::int64_t row, std::int64_t pack) {
        const std::int64_t column = pack * n, at = row * job.width + column;
        const int valid = static_cast<int>(std::min<std::int64_t>(n, job.width - column));
        T *master_at = static_cast<T*>(job.master) + at, *m_at = static_cast<T*>(job.m) + at,
          *v_at = static_cast<T*>(job.v) + at;
        Pack<T, n> master{};
        if (job.master) master = load_pack<n>(static_cast<const T*>(master_at), valid);
        auto m = load_pack<n>(static_cast<const T*>(m_at), valid),
             v = load_pack<n>(static_cast<const T*>(v_at), valid);
        const auto gradient = load_pack<n>(job.gradient.row<const T>(row) + column, valid);
        const Factors<T> f(job.settings, clip, job.corrections[job.one_step ? 0 : row],
                           job.frozen && job.frozen[row] != 0);
        Pack<Value, n> value;
        for (int i = 0; i < n; ++i) {
            const T g = f.clip * gradient.x[i];
            m.x[i] = f.beta1 * m.x[i] + f.one_minus_beta1 * g;
            v.x[i] = f.beta2 * v.x[i] + f.one_minus_beta2 * g * g;
            const T step = m.x[i] * f.m_correction / (std::sqrt(v.x[i] * f.v_correction) + f.eps);
            master.x[i] = job.master ? master.x[i] - f.lr * (f.decay * master.x[i] + step) : step;
            value.x[i] = narrow<Value>(master.x[i]);
        }
        store_pack(m, m_at, valid);
        store_pack(v, v_at, valid);
        if (job.master) store_pack(master, master_at, valid);
        store_pack(value, job.value.row<Value>(row) + column, valid);
    });
}

template <class T, class Value>
__device__ void update_job(const Job& job, double clip, unsigned block) {
    job.packs ? update_block<T, Value, pack_size<T>>(job, clip, block)
              : update_block<T, Value, 1>(job, clip, block);
}

template <class Jobs>
__global__ void update_jobs(const Jobs __grid_constant__ jobs, const double* clip) {
    if (clip[1] == 0) return;
    const int index = jobs.index();
    const Job& job = jobs.item[index];
    const unsigned block = blockIdx.x - jobs.first_block[index];
    with_number(job.value_type, [&]<class Value>() { update_job<Wide<Value>, Value>(job, clip[0], block); });
}

/// Everything but the division into tiles.
Job job_of(const AdamWRows& rows, const Corrections* corrections, bool with_master) {
    check_rows(rows, with_master);
    const RowPart gradient = part_of(rows, rows.gradient), value = part_of(rows, rows.value);
    Job job;
    job.master = with_master ? rows.master.raw() : nullptr, job.m = rows.m.raw(), job.v = rows.v.raw();
    job.gradient = RowPlaces(gradient), job.value = RowPlaces(value);
    job.frozen = rows.frozen.empty() ? nullptr : rows.frozen.data<std::int32_t>();
    job.corrections = corrections, job.settings = rows.settings;
    job.value_type = rows.value.dtype(), job.one_step = rows.step.size() == 1;
    const bool long_row = job.one_step && !job.frozen && is_contiguous(gradient);
    const Extent extent(gradient, long_row);
    const std::size_t element = size_of(rows.m.dtype()), n = 16 / element;
    const auto state = reinterpret_cast<std::uintptr_t>(job.master) |
                       reinterpret_cast<std::uintptr_t>(job.m) | reinterpret_cast<std::uintptr_t>(job.v) |
                       (long_row ? 0 : static_cast<std::uintptr_t>(extent.width) * element);
    job.packs = state % 16 == 0 && job.gradient.aligned(16, long_row) &&
                job.value.aligned(n * size_of(job.value_type), long_row);
    job.width = extent.width;
    job.tiles.rows = extent.rows;
    job.tiles.width = job.packs ? cuda::ceil_div(extent.width, static_cast<std::int64_t>(n)) : extent.width;
    return job;
}

__global__ void form_clip(const double* squared_norm, const double* loss, double limit, double* clip) {
    const double square = *squared_norm, norm = std::sqrt(square);
    clip[0] = limit > 0 && norm > limit ? limit / norm : 1.0;
    clip[1] = isfinite(square) && (!loss || isfinite(*loss)) ? 1.0 : 0.0;
}

void update(std::span<const AdamWRows> parameters, Tensor clip, bool with_master) {
    check("clip", clip, DType::f64, {2});
    std::int64_t counters = 0, most_counters = 1;
    for (const AdamWRows& rows : parameters) counters += rows.step.size();
    auto* corrections = cuda::workspace_of<Corrections>(counters);
    ItemList<Counters> steps;
    std::vector<Job> jobs;
    std::vector<CodedRows> coded;
    for (const AdamWRows& rows : parameters) {
        const std::int64_t count = rows.step.size();
        steps.add(
            {rows.step.data<std::int32_t>(), count, rows.settings.beta1, rows.settings.beta2, corrections},
            cuda::ceil_div(count, counters_of_block));
        most_counters = std::max(most_counters, count);
        if (!rows.m.empty() && rows.coded()) {
            check_rows(rows, with_master);
            coded.push_back({&rows, corrections});
        } else if (!rows.m.empty()) {
            jobs.push_back(job_of(rows, corrections, with_master));
        }
        corrections += count;
    }
    const auto* clip_data = clip.data<const double>();
    steps.for_launches([&](const auto& items, std::int64_t blocks) {
        cuda::launch({blocks, block_threads(most_counters)}, advance_steps<std::decay_t<decltype(items)>>,
                     items, clip_data);
    });
    launch_jobs(jobs, [&](const auto& launched, const cuda::Grid& grid) {
        cuda::launch(grid, update_jobs<std::decay_t<decltype(launched)>>, launched, clip_data);
    });
    update_coded(coded, clip_data);
}

}  // namespace

void adamw(std::span<const AdamWRows> parameters, Tensor clip) {
    count_kernel(__func__);
    update(parameters, clip, true);
}

void adam_direction(std::span<const AdamWRows> parameters, Tensor clip) {
    count_kernel(__func__);
    update(parameters, clip, false);
}

void clip_coefficient(Tensor squared_norm, Tensor loss, double limit, Tensor clip) {
    count_kernel(__func__);
    check("squared norm", squared_norm, DType::f64, {1});
    check("clip", clip, DType::f64, {2});
    if (!loss.empty()) check("loss", loss, DType::f64, {1});
    cuda::launch({1, 1}, form_clip, squared_norm.data<double>(), loss.empty() ? nullptr : loss.data<double>(),
                 limit, clip.data<double>());
}

}  // namespace switchyard::kernels

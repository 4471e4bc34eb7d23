// A warp takes a block of codes, whose moments stay in its registers between decoding and encoding. The maps
// are in shared memory, where each thread block forms them. Compiled without contraction of a b + c, so that
// moments and codes have the CPU's bits.
#include "core/calls.hpp"
#include "cuda/kernels/adamw/codes.cuh"
#include "cuda/kernels/row_places.cuh"
#include "kernels/moment_codes.hpp"

namespace switchyard::kernels {
namespace {

constexpr int threads = 256, warps = threads / cuda::warp_size;
constexpr int of_lane =
    static_cast<int>(code_block) / cuda::warp_size;  // neighbours are in neighbouring lanes

/// Values and bounds of both maps.
template <class T>
struct Maps {
    float m_value[num_codes], v_value[num_codes];
    T m_bound[num_codes], v_bound[num_codes];  // the last is not used
};

template <class T>
__device__ Maps<T>& form_maps() {
    auto& maps = cuda::block_memory<Maps<T>>();
    for (int code = static_cast<int>(threadIdx.x); code < num_codes; code += threads) {
        maps.m_value[code] = code_value(code, true), maps.v_value[code] = code_value(code, false);
        if (code + 1 == num_codes) continue;
        maps.m_bound[code] = code_bound<T>(code, true), maps.v_bound[code] = code_bound<T>(code, false);
    }
    __syncthreads();
    return maps;
}

/// A parameter with its addresses.
struct Job {
    void* master = nullptr;
    std::uint8_t *m = nullptr, *v = nullptr;
    void *m_scale = nullptr, *v_scale = nullptr, *maxima = nullptr;
    RowPlaces gradient, value;
    const std::int32_t* frozen = nullptr;
    const Corrections* corrections = nullptr;
    std::int64_t rows = 0, width = 0, whole_column = 0, blocks = 0;  // blocks of a row
    std::int64_t first = 0;  // index of its maxima among those of a rank
    AdamWSettings settings;
    DType value_type{};
    bool one_step = false;
};

Job job_of(const AdamWRows& rows, const Corrections* corrections) {
    Job job;
    job.master = rows.master.empty() ? nullptr : rows.master.raw();
    job.m = rows.m.data<std::uint8_t>(), job.v = rows.v.data<std::uint8_t>();
    job.m_scale = rows.m_scale.raw(), job.v_scale = rows.v_scale.raw();
    job.maxima = rows.end_maxima.empty() ? nullptr : rows.end_maxima.raw();
    job.gradient = RowPlaces(part_of(rows, rows.gradient)), job.value = RowPlaces(part_of(rows, rows.value));
    job.frozen = rows.frozen.empty() ? nullptr : rows.frozen.data<std::int32_t>();
    job.corrections = corrections, job.settings = rows.settings;
    job.rows = rows.m.dim(0), job.width = rows.m.dim(1);
    job.whole_column = rows.whole_column, job.blocks = rows.m_scale.dim(1);
    job.value_type = rows.value.dtype(), job.one_step = rows.step.size() == 1;
    return job;
}

template <class T>
__device__ inline T warp_max(T x) {
    for (int distance = cuda::warp_size / 2; distance > 0; distance /= 2) {
        const T other = __shfl_xor_sync(cuda::all_lanes, x, distance);
        x = other > x ? other : x;
    }
    return x;
}

/// A warp's block: its columns, and its moments after a step. Lane l has elements l, l + 32, ...
template <class T>
struct Block {
    std::int64_t row, scale, begin;  // scale: index of its scales
    int lane, n;
    T m[of_lane], v[of_lane];

    __device__ Block(const Job& job, std::int64_t r, std::int64_t number)
        : row(r), scale(r * job.blocks + number), lane(static_cast<int>(threadIdx.x) % cuda::warp_size) {
        const CodeBlock columns = local_block(job.whole_column, job.width, number);
        begin = columns.begin, n = static_cast<int>(columns.end - columns.begin);
    }
    __device__ std::int64_t at(const Job& job) const { return row * job.width + begin; }

    __device__ void advance(const Job& job, const Maps<T>& maps, double clip) {
        const AdamWSettings& s = job.settings;
        const bool frozen = job.frozen && job.frozen[row] != 0;
        const T c = static_cast<T>(frozen ? 0 : clip), beta1 = static_cast<T>(s.beta1),
                one_minus_beta1 = static_cast<T>(1 - s.beta1), beta2 = static_cast<T>(s.beta2),
                one_minus_beta2 = static_cast<T>(1 - s.beta2);
        const T m_scale = static_cast<const T*>(job.m_scale)[scale],
                v_scale = static_cast<const T*>(job.v_scale)[scale];
        const T* gradient = job.gradient.row<const T>(row) + begin;
        const std::uint8_t *m_codes = job.m + at(job), *v_codes = job.v + at(job);
        SWITCHYARD_UNROLL
        for (int i = 0; i < of_lane; ++i) {
            const int j = i * cuda::warp_size + lane;
            m[i] = v[i] = 0;
            if (j >= n) continue;
            const T g = c * gradient[j];
            m[i] = beta1 * (static_cast<T>(maps.m_value[m_codes[j]]) * m_scale) + one_minus_beta1 * g;
            v[i] = beta2 * (static_cast<T>(maps.v_value[v_codes[j]]) * v_scale) + one_minus_beta2 * g * g;
        }
    }

    /// Moves the master and its copy, or gives the direction.
    template <class Value>
    __device__ void move(const Job& job) const {
        const AdamWSettings& s = job.settings;
        const bool frozen = job.frozen && job.frozen[row] != 0;
        const Corrections correction = job.corrections[job.one_step ? 0 : row];
        const T lr = static_cast<T>(s.lr), decay = static_cast<T>(frozen ? 0 : s.weight_decay),
                eps = static_cast<T>(s.eps), m_correction = static_cast<T>(correction.m),
                v_correction = static_cast<T>(correction.v);
        T* master = job.master ? static_cast<T*>(job.master) + at(job) : nullptr;
        Value* value = job.value.row<Value>(row) + begin;
        SWITCHYARD_UNROLL
        for (int i = 0; i < of_lane; ++i) {
            const int j = i * cuda::warp_size + lane;
            if (j >= n) continue;
            const T step = m[i] * m_correction / (std::sqrt(v[i] * v_correction) + eps);
            T moved = step;
            if (master) master[j] = moved = master[j] - lr * (decay * master[j] + step);
            value[j] = narrow<Value>(moved);
        }
    }

    /// The block's largest |m| and v, on all lanes.
    __device__ T largest_m() const {
        T largest = 0;
        SWITCHYARD_UNROLL
        for (int i = 0; i < of_lane; ++i) largest = fabs(m[i]) > largest ? fabs(m[i]) : largest;
        return warp_max(largest);
    }
    __device__ T largest_v() const {
        T largest = 0;
        SWITCHYARD_UNROLL
        for (int i = 0; i < of_lane; ++i) largest = v[i] > largest ? v[i] : largest;
        return warp_max(largest);
    }

    __device__ void encode(const Job& job, const Maps<T>& maps, T m_scale, T v_scale) const {
        const T m_divisor = m_scale > 0 ? m_scale : 1, v_divisor = v_scale > 0 ? v_scale : 1;
        std::uint8_t *m_codes = job.m + at(job), *v_codes = job.v + at(job);
        SWITCHYARD_UNROLL
        for (int i = 0; i < of_lane; ++i) {
            const int j = i * cuda::warp_size + lane;
            if (j >= n) continue;
            m_codes[j] =
                static_cast<std::uint8_t>(nearest_code(m[i] / m_divisor, maps.m_bound, zero_code(true)));
            v_codes[j] =
                static_cast<std::uint8_t>(nearest_code(v[i] / v_divisor, maps.v_bound, zero_code(false)));
        }
        __syncwarp();  // all lanes have read the old scales
        if (lane != 0) return;
        static_cast<T*>(job.m_scale)[scale] = m_scale;
        static_cast<T*>(job.v_scale)[scale] = v_scale;
    }
};

template <class T, class Value>
__device__ void update_one(const Job& job, const Maps<T>& maps, double clip, std::int64_t row,
                           std::int64_t number) {
    Block<T> block(job, row, number);
    block.advance(job, maps, clip);
    block.template move<Value>(job);
    const T m = block.largest_m(), v = block.largest_v();
    const bool first = number == 0, last = number == job.blocks - 1;
    if (!job.maxima || !(first || last)) return block.encode(job, maps, m, v);
    T* maxima = static_cast<T*>(job.maxima) + 4 * row;
    if (block.lane != 0) return;
    if (first) maxima[0] = m, maxima[1] = v;
    if (last) maxima[2] = m, maxima[3] = v;
}

/// The maxima of all ranks that share rows.
struct MaximaOfRanks {
    const void* values = nullptr;
    std::int64_t ranks = 0, length = 0;
};

/// The first block of a row, or the last one.
template <class T>
__device__ void code_end(const Job& job, const Maps<T>& maps, double clip, std::int64_t row, bool last,
                         const MaximaOfRanks& maxima) {
    const std::int64_t number = last ? job.blocks - 1 : 0, whole = job.whole_column / code_block + number;
    T m = 0, v = 0;
    for (std::int64_t p = 0; p < maxima.ranks; ++p) {
        const T* of_rank = static_cast<const T*>(maxima.values) + p * maxima.length + job.first + 4 * row;
        for (int end = 0; end < 2; ++end) {
            const std::int64_t column = end == 0 ? p * job.width : p * job.width + job.width - 1;
            if (column / code_block != whole) continue;
            m = of_rank[2 * end] > m ? of_rank[2 * end] : m;
            v = of_rank[2 * end + 1] > v ? of_rank[2 * end + 1] : v;
        }
    }
    Block<T> block(job, row, number);
    block.advance(job, maps, clip);
    block.encode(job, maps, m, v);
}

/// Blocks of codes that a thread block takes, a multiple of its warps.
struct Share {
    std::int64_t blocks = warps;
};

/// f(number of a block of codes among those of the job) for this warp's share; `all`: of the job.
template <class F>
__device__ void for_share(const Share& share, std::int64_t all, unsigned block, const F& f) {
    const std::int64_t first = std::int64_t{block} * share.blocks,
                       warp = static_cast<std::int64_t>(threadIdx.x) / cuda::warp_size;
    for (std::int64_t i = first + warp; i < std::min(first + share.blocks, all); i += warps) f(i);
}

template <class T, class Jobs>
__global__ void __launch_bounds__(threads)
    update_jobs(const Jobs __grid_constant__ jobs, const double* clip, Share share) {
    if (clip[1] == 0) return;
    const Maps<T>& maps = form_maps<T>();
    const int index = jobs.index();
    const Job& job = jobs.item[index];
    for_share(share, job.rows * job.blocks, blockIdx.x - jobs.first_block[index], [&](std::int64_t i) {
        const std::int64_t row = i / job.blocks, number = i - row * job.blocks;
        if constexpr (std::is_same_v<T, float>) {
            if (job.value_type == DType::bf16) return update_one<T, bf16>(job, maps, clip[0], row, number);
        }
        update_one<T, T>(job, maps, clip[0], row, number);
    });
}

template <class T, class Jobs>
__global__ void __launch_bounds__(threads)
    code_ends(const Jobs __grid_constant__ jobs, const double* clip, Share share, MaximaOfRanks maxima) {
    if (clip[1] == 0) return;
    const Maps<T>& maps = form_maps<T>();
    const int index = jobs.index();
    const Job& job = jobs.item[index];
    const std::int64_t ends = job.blocks > 1 ? 2 : 1;
    for_share(share, job.rows * ends, blockIdx.x - jobs.first_block[index],
              [&](std::int64_t i) { code_end<T>(job, maps, clip[0], i / ends, i % ends == 1, maxima); });
}

/// start<T>(jobs of a launch, grid, share) for all jobs, which have one type; blocks_of(job): of codes.
template <class BlocksOf, class Start>
void launch_coded(const std::vector<Job>& jobs, DType type, const BlocksOf& blocks_of, const Start& start) {
    std::int64_t all = 0;
    for (const Job& job : jobs) all += blocks_of(job);
    constexpr std::int64_t most = 8;  // rounds of a thread block
    const std::int64_t at_once = std::int64_t{8} * cuda::multiprocessors() * warps;
    const Share share{warps * std::clamp<std::int64_t>(cuda::ceil_div(all, at_once), 1, most)};
    ItemList<Job> items;
    for (const Job& job : jobs) items.add(job, cuda::ceil_div(blocks_of(job), share.blocks));
    items.for_launches([&](const auto& launched, std::int64_t blocks) {
        if (type == DType::f64)
            start.template operator()<double>(launched, {blocks, threads, sizeof(Maps<double>)}, share);
        else
            start.template operator()<float>(launched, {blocks, threads, sizeof(Maps<float>)}, share);
    });
}

}  // namespace

void update_coded(const std::vector<CodedRows>& parameters, const double* clip) {
    if (parameters.empty()) return;
    std::vector<Job> jobs;
    for (const CodedRows& coded : parameters) jobs.push_back(job_of(*coded.rows, coded.corrections));
    launch_coded(
        jobs, parameters.front().rows->m_scale.dtype(), [](const Job& job) { return job.rows * job.blocks; },
        [&]<class T>(const auto& launched, const cuda::Grid& grid, const Share& share) {
            cuda::launch(grid, update_jobs<T, std::decay_t<decltype(launched)>>, launched, clip, share);
        });
}

void code_shared_blocks(std::span<const SharedBlocks> parameters, Tensor maxima, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    std::vector<Job> jobs;
    for (const SharedBlocks& shared : parameters) {
        check_shared(shared, maxima);
        jobs.push_back(job_of(shared.rows, nullptr));
        jobs.back().first = shared.first;
    }
    if (jobs.empty()) return;
    const MaximaOfRanks of_ranks{maxima.raw(), maxima.dim(0), maxima.dim(1)};
    const auto* clip_data = clip.data<const double>();
    launch_coded(
        jobs, maxima.dtype(), [](const Job& job) { return job.rows * (job.blocks > 1 ? 2 : 1); },
        [&]<class T>(const auto& launched, const cuda::Grid& grid, const Share& share) {
            cuda::launch(grid, code_ends<T, std::decay_t<decltype(launched)>>, launched, clip_data, share,
                         of_ranks);
        });
}

}  // namespace switchyard::kernels

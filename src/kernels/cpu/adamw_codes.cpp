// A block of codes is decoded, updated and encoded while it is in cache; blocks are shared among the threads.
// Arithmetic in the type of the scales, each operation rounded: moments have the same bits on every back end.
#include <algorithm>
#include <array>
#include <vector>

#include "core/calls.hpp"
#include "kernels/cpu/adamw_factors.hpp"
#include "kernels/cpu/code_table.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

/// Of one moment.
template <bool has_signs>
constexpr std::array<float, num_codes> code_values = [] {
    std::array<float, num_codes> all{};
    for (int code = 0; code < num_codes; ++code) all[code] = code_value(code, has_signs);
    return all;
}();

/// The moments of one block after a step.
template <class T>
struct Moments {
    T m[code_block], v[code_block];

    T largest_m(std::int64_t n) const {
        T largest = 0;
#pragma omp simd reduction(max : largest)
        for (std::int64_t j = 0; j < n; ++j) largest = std::max(largest, std::fabs(m[j]));
        return largest;
    }
    T largest_v(std::int64_t n) const {
        T largest = 0;
#pragma omp simd reduction(max : largest)
        for (std::int64_t j = 0; j < n; ++j) largest = std::max(largest, v[j]);
        return largest;
    }
};

/// A function of its own, so that both callers get the same bits.
template <class T>
[[gnu::noinline]] void advance(Moments<T>& next, const std::uint8_t* m, const std::uint8_t* v, T m_scale,
                               T v_scale, const T* gradient, const Factors<T>& factors, std::int64_t n) {
    const Factors<T> f = factors;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
        const T g = f.clip * gradient[j];
        next.m[j] = f.beta1 * (static_cast<T>(code_values<true>[m[j]]) * m_scale) + f.one_minus_beta1 * g;
        next.v[j] =
            f.beta2 * (static_cast<T>(code_values<false>[v[j]]) * v_scale) + f.one_minus_beta2 * g * g;
    }
}

template <class T, class Value>
[[gnu::noinline]] void move(T* master, Value* value, const Moments<T>& moments, const Factors<T>& factors,
                            std::int64_t n) {
    const Factors<T> f = factors;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
        const T step = moments.m[j] * f.m_correction / (std::sqrt(moments.v[j] * f.v_correction) + f.eps);
        const T updated = master[j] - f.lr * (f.decay * master[j] + step);
        master[j] = updated;
        value[j] = convert<Value>(updated);
    }
}

template <class T, class Value>
[[gnu::noinline]] void direct(Value* value, const Moments<T>& moments, const Factors<T>& factors,
                              std::int64_t n) {
    const Factors<T> f = factors;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j)
        value[j] = convert<Value>(moments.m[j] * f.m_correction /
                                  (std::sqrt(moments.v[j] * f.v_correction) + f.eps));
}

template <bool has_signs, class T>
[[gnu::noinline]] void encode(const T* x, T scale, std::uint8_t* codes, std::int64_t n) {
    const T divisor = scale > 0 ? scale : 1;  // all are zero then
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) codes[j] = CodeTable<T, has_signs>::nearest(x[j] / divisor);
}

/// One parameter and the addresses of its tensors.
struct Job {
    const AdamWRows* rows = nullptr;
    RowPlaces gradient, value;
    Corrections common;  // with one step counter
    double clip = 1;
    std::int64_t blocks = 0;  // of a row
    std::int64_t first = 0;   // its end_maxima among those of a rank

    Job(const AdamWRows& x, double c)
        : rows(&x),
          gradient(part_of(x, x.gradient)),
          value(part_of(x, x.value)),
          clip(c),
          blocks(x.m_scale.dim(1)) {
        if (x.step.size() == 1) common = corrections(x.settings, *x.step.data<std::int32_t>());
    }
    std::int64_t num_rows() const { return rows->m.dim(0); }
};

/// One block of one row, with its codes and scales.
template <class T>
struct Block {
    std::int64_t row, number, begin, n;
    std::uint8_t *m, *v;
    T *m_scale, *v_scale;
    Factors<T> factors;

    Block(const Job& job, std::int64_t r, std::int64_t b) : row(r), number(b) {
        const AdamWRows& x = *job.rows;
        const std::int64_t width = x.m.dim(1);
        const CodeBlock columns = local_block(x.whole_column, width, b);
        begin = columns.begin, n = columns.end - columns.begin;
        m = x.m.data<std::uint8_t>() + row * width + begin;
        v = x.v.data<std::uint8_t>() + row * width + begin;
        m_scale = x.m_scale.data<T>() + row * job.blocks + b;
        v_scale = x.v_scale.data<T>() + row * job.blocks + b;
        const bool one_step = x.step.size() == 1;
        factors =
            factors_of<T>(x.settings, job.clip,
                          one_step ? job.common : corrections(x.settings, x.step.data<std::int32_t>()[row]),
                          !x.frozen.empty() && x.frozen.data<std::int32_t>()[row] != 0);
    }
    void advance_to(Moments<T>& next, const Job& job) const {
        advance(next, m, v, *m_scale, *v_scale, job.gradient.at<const T>(row, begin), factors, n);
    }
    void keep(const Moments<T>& next, T largest_m, T largest_v) const {
        encode<true>(next.m, *m_scale = largest_m, m, n);
        encode<false>(next.v, *v_scale = largest_v, v, n);
    }
};

template <class T, class Value>
void update_block(const Job& job, std::int64_t row, std::int64_t number) {
    const AdamWRows& rows = *job.rows;
    const Block<T> block(job, row, number);
    Moments<T> next;
    block.advance_to(next, job);
    auto* value = job.value.at<Value>(row, block.begin);
    if (rows.master.empty())
        direct(value, next, block.factors, block.n);
    else
        move(rows.master.data<T>() + row * rows.m.dim(1) + block.begin, value, next, block.factors, block.n);
    const T m = next.largest_m(block.n), v = next.largest_v(block.n);
    const bool first = number == 0, last = number == job.blocks - 1;
    if (rows.end_maxima.empty() || !(first || last)) return block.keep(next, m, v);
    T* maxima = rows.end_maxima.data<T>() + 4 * row;
    if (first) maxima[0] = m, maxima[1] = v;
    if (last) maxima[2] = m, maxima[3] = v;
}

/// The first block of a row, or the last one.
template <class T>
void code_end(const Job& job, std::int64_t row, bool last, Tensor maxima) {
    const std::int64_t width = job.rows->m.dim(1), number = last ? job.blocks - 1 : 0,
                       whole = job.rows->whole_column / code_block + number;
    T m = 0, v = 0;
    for (std::int64_t p = 0; p < maxima.dim(0); ++p) {
        const T* of_rank = maxima.data<T>() + p * maxima.dim(1) + job.first + 4 * row;
        for (int end : {0, 1}) {
            if ((end == 0 ? p * width : p * width + width - 1) / code_block != whole) continue;
            m = std::max(m, of_rank[2 * end]), v = std::max(v, of_rank[2 * end + 1]);
        }
    }
    const Block<T> block(job, row, number);
    Moments<T> next;
    block.advance_to(next, job);
    block.keep(next, m, v);
}

/// work(job, item) for the items of all jobs, on all threads; items_of(job).
template <class Items, class Work>
void for_items(const std::vector<Job>& jobs, const Items& items_of, const Work& work) {
    std::vector<std::int64_t> first{0};
    for (const Job& job : jobs) first.push_back(first.back() + items_of(job));
    const std::int64_t all = first.back();
    for_rows(all, code_block, [&](std::int64_t i) {
        const auto next = std::upper_bound(first.begin(), first.end(), i);
        const auto job = static_cast<std::size_t>(next - first.begin() - 1);
        work(jobs[job], i - first[job]);
    });
}

}  // namespace

void update_coded(std::span<const AdamWRows* const> parameters, double clip) {
    std::vector<Job> jobs;
    for (const AdamWRows* rows : parameters) jobs.emplace_back(*rows, clip);
    for_items(
        jobs, [](const Job& job) { return job.num_rows() * job.blocks; },
        [](const Job& job, std::int64_t i) {
            dispatch(job.rows->value.dtype(), [&]<class Value>() {
                update_block<Wide<Value>, Value>(job, i / job.blocks, i % job.blocks);
            });
        });
}

void code_shared_blocks(std::span<const SharedBlocks> parameters, Tensor maxima, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    std::vector<Job> jobs;
    for (const SharedBlocks& shared : parameters) {
        check_shared(shared, maxima);
        jobs.emplace_back(shared.rows, clip.data<double>()[0]).first = shared.first;
    }
    if (clip.data<double>()[1] == 0) return;
    const auto ends = [](const Job& job) { return std::min<std::int64_t>(job.blocks, 2); };
    for_items(
        jobs, [&](const Job& job) { return job.num_rows() * ends(job); },
        [&](const Job& job, std::int64_t i) {
            dispatch(maxima.dtype(), [&]<class T>() {
                if constexpr (!std::is_same_v<T, bf16>)
                    code_end<T>(job, i / ends(job), i % ends(job) == 1, maxima);
            });
        });
}

}  // namespace switchyard::kernels

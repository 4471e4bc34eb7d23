// Rows are cut into blocks of fixed length whose statistics are merged in order, so long sums lose no
// accuracy and results do not depend on the number of threads.
#include "kernels/cross_entropy.hpp"

#include <vector>

#include "core/calls.hpp"
#include "core/cpu/thread_scratch.hpp"
#include "core/shared_loop.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace {

/// Rows of a block, which are added in f32 one by one.
constexpr std::int64_t block_rows = 512;
/// Rows whose maximum is taken before they are read again for their exponentials.
constexpr std::int64_t strip_rows = 16;

/// max, sum (n) <- the statistics of what they describe already and of `rows` rows of x (rows, n).
template <class T>
void add_strip(const T* x, std::int64_t rows, std::int64_t n, Wide<T>* max, Wide<T>* sum, Wide<T>* before) {
    std::copy_n(max, n, before);
    for (std::int64_t r = 0; r < rows; ++r) {
        const T* row = x + r * n;
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) max[i] = load(row[i]) > max[i] ? load(row[i]) : max[i];
    }
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) sum[i] *= exponential(before[i] - max[i]);
    for (std::int64_t r = 0; r < rows; ++r) {
        const T* row = x + r * n;
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) sum[i] += exponential(load(row[i]) - max[i]);
    }
}

/// max, sum (n) <- the statistics of theirs and another set of logits together.
template <class X>
void merge(const X* other_max, const X* other_sum, X* max, X* sum, std::int64_t n) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
        const X top = other_max[i] > max[i] ? other_max[i] : max[i];
        sum[i] = sum[i] * exponential(max[i] - top) + other_sum[i] * exponential(other_max[i] - top);
        max[i] = top;
    }
}

/// x (n) <- scale * softmax.
template <class T>
void scaled_softmax(T* x, const Wide<T>* lse, Wide<T> scale, std::int64_t n) {
    const auto strip = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i)
            x[i] = convert<T>(scale * exponential(load(x[i]) - lse[i]));
    };
    for_strips(n, strip, x);
}

/// f(token, position of its target in logits (rows, n)) for the targets within `range`.
template <class F>
void for_targets(Tensor targets, VocabRange range, F f) {
    const auto* target = targets.data<std::int32_t>();
    const std::int64_t n = targets.size();
    for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t row = target[i] - range.begin;
        if (target[i] >= 0 && row >= 0 && row < range.count) f(i, row * n + i);
    }
}

}  // namespace

std::size_t logits_chunk_bytes() {
    return std::size_t{32} << 20;
}

void softmax_statistics(Tensor logits, Tensor targets, VocabRange range, Tensor stats) {
    count_kernel(__func__);
    check_logits(logits, targets, range);
    const std::int64_t n = logits.dim(1);
    check("softmax statistics", stats, accumulate_type(logits.dtype()), {3, n});
    if (n == 0) return;
    dispatch(logits.dtype(), [&]<class T>() {
        using Stat = Wide<T>;
        constexpr Stat lowest = -std::numeric_limits<Stat>::infinity();
        const T* x = logits.data<T>();
        const std::int64_t blocks = (range.count + block_rows - 1) / block_rows;
        // The max, sum and scratch of each block.
        auto* const parts = reinterpret_cast<Stat*>(
            thread_scratch(ScratchUse::statistics, static_cast<std::size_t>(3 * blocks * n) * sizeof(Stat)));
        for_shared(blocks, range.count * n > parallel_elements, [&](std::int64_t b) {
            Stat *max = parts + 3 * b * n, *sum = max + n, *before = sum + n;
            std::fill_n(max, n, lowest);
            std::fill_n(sum, n, Stat(0));
            const std::int64_t end = std::min(range.count, (b + 1) * block_rows);
            for (std::int64_t row = b * block_rows; row < end; row += strip_rows)
                add_strip(x + row * n, std::min(strip_rows, end - row), n, max, sum, before);
        });
        Stat* total = stats.data<Stat>();
        std::fill_n(total, n, lowest);
        std::fill_n(total + n, 2 * n, Stat{});
        for (std::int64_t b = 0; b < blocks; ++b) {
            const Stat* part = parts + 3 * b * n;
            merge(part, part + n, total, total + n, n);
        }
        for_targets(targets, range, [=](std::int64_t i, std::int64_t at) { total[2 * n + i] = load(x[at]); });
    });
}

void combine_statistics(Tensor all_stats, Tensor targets, Tensor lse, Tensor loss) {
    count_kernel(__func__);
    check_statistics(all_stats, targets, lse, loss);
    const std::int64_t parts = all_stats.dim(0), n = all_stats.dim(2);
    if (all_stats.empty()) return;
    double total = 0;
    dispatch(all_stats.dtype(), [&]<class T>() {
        for (std::int64_t i = 0; i < n; ++i) {
            const auto part = [&](std::int64_t p, std::int64_t which) {
                return static_cast<double>(load(all_stats.data<T>()[(3 * p + which) * n + i]));
            };
            double maximum = part(0, 0), sum = 0, logit = 0;
            for (std::int64_t p = 1; p < parts; ++p) maximum = std::max(maximum, part(p, 0));
            for (std::int64_t p = 0; p < parts; ++p) {
                sum += part(p, 1) * std::exp(part(p, 0) - maximum);
                logit += part(p, 2);
            }
            const double log_sum = maximum + std::log(sum);
            lse.data<T>()[i] = convert<T>(log_sum);
            if (targets.data<std::int32_t>()[i] >= 0) total += log_sum - logit;
        }
    });
    *loss.data<double>() += total;
}

void cross_entropy_backward(Tensor logits, Tensor lse, Tensor targets, VocabRange range, double scale) {
    count_kernel(__func__);
    check_logits(logits, targets, range);
    const std::int64_t rows = logits.dim(0), n = logits.dim(1);
    check("softmax sums", lse, accumulate_type(logits.dtype()), {n});
    if (logits.empty()) return;
    dispatch(logits.dtype(), [&]<class T>() {
        T* x = logits.data<T>();
        const auto* given = lse.data<Wide<T>>();
        const auto* target = targets.data<std::int32_t>();
        const auto factor = static_cast<Wide<T>>(scale);
        std::vector<Wide<T>> sums(given, given + n), at_target(sums.size());
        for (std::size_t i = 0; i < sums.size(); ++i)
            if (target[i] < 0) sums[i] = std::numeric_limits<Wide<T>>::infinity();  // its softmax is 0
        // Subtracted before rounding, because softmax - 1 is small where the model is sure.
        for_targets(targets, range, [&](std::int64_t i, std::int64_t at) {
            at_target[static_cast<std::size_t>(i)] = factor * (exponential(load(x[at]) - given[i]) - 1);
        });
        const Wide<T>* log_sums = sums.data();
        for_rows(rows, n, [=](std::int64_t row) {
            if (row < range.count)
                scaled_softmax(x + row * n, log_sums, factor, n);
            else
                std::fill_n(x + row * n, n, T{});
        });
        for_targets(targets, range, [&](std::int64_t i, std::int64_t at) {
            x[at] = convert<T>(at_target[static_cast<std::size_t>(i)]);
        });
    });
}

}  // namespace switchyard::kernels

// A row of logits is read from memory once: maximum, exponentials and gradient find it in cache. Sums run
// over blocks of fixed length, so that long rows lose no accuracy and results do not depend on the number of
// threads.
#include "kernels/cross_entropy.hpp"

#include "kernels/dispatch.hpp"
#include "kernels/vector_math.hpp"

namespace switchyard::kernels {
namespace {

/// Additions in f32 before the sum moves on to f64.
constexpr std::int64_t sum_length = 512;

template <class T>
Wide<T> sum_exponentials(const T* x, Wide<T> shift, std::int64_t n) {
    return sum_over<Wide<T>>(
        n, [=](std::int64_t j, Wide<T> sum) { return sum + exponential(load(x[j]) - shift); });
}

template <class T>
void scaled_softmax(T* x, Wide<T> lse, Wide<T> scale, std::int64_t n) {
    const auto strip = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) x[j] = convert<T>(scale * exponential(load(x[j]) - lse));
    };
    for_strips(n, strip, x);
}

/// Column of the target in the local logits, or -1: ignored, or held by another rank.
std::int64_t target_column(std::int32_t target, VocabRange range) {
    const std::int64_t column = target - range.begin;
    return target >= 0 && column >= 0 && column < range.count ? column : -1;
}

void check_logits(Tensor logits, Tensor targets, VocabRange range) {
    internal_check(logits.shape().rank() == 2 && range.count <= logits.dim(1), "logits {} for {} tokens",
                   logits.shape(), range.count);
    check("targets", targets, DType::i32, {logits.dim(0)});
}

}  // namespace

void softmax_statistics(Tensor logits, Tensor targets, VocabRange range, Tensor stats) {
    check_logits(logits, targets, range);
    check("softmax statistics", stats, accumulate_type(logits.dtype()), {logits.dim(0), 3});
    if (stats.empty()) return;
    const std::int64_t width = logits.dim(1);
    dispatch(logits.dtype(), [&]<class T>() {
        for_rows(logits.dim(0), width, [=](std::int64_t i) {
            const T* row = logits.data<T>() + i * width;
            const Wide<T> maximum = maximum_of(row, range.count);
            double sum = 0;
            for (std::int64_t j = 0; j < range.count; j += sum_length)
                sum += sum_exponentials(row + j, maximum, std::min(sum_length, range.count - j));
            const std::int64_t target = target_column(targets.data<std::int32_t>()[i], range);
            Wide<T>* out = stats.data<Wide<T>>() + 3 * i;
            out[0] = maximum;
            out[1] = static_cast<Wide<T>>(sum);
            out[2] = target >= 0 ? load(row[target]) : 0;
        });
    });
}

double combine_statistics(Tensor all_stats, Tensor targets, Tensor lse) {
    internal_check(all_stats.shape().rank() == 3 && all_stats.dim(2) == 3, "softmax statistics {}",
                   all_stats.shape());
    const std::int64_t parts = all_stats.dim(0), n = all_stats.dim(1);
    check("targets", targets, DType::i32, {n});
    check("softmax sums", lse, all_stats.dtype(), {n});
    double loss = 0;
    if (all_stats.empty()) return loss;
    dispatch(all_stats.dtype(), [&]<class T>() {
        for (std::int64_t i = 0; i < n; ++i) {
            const auto part = [&](std::int64_t p) { return all_stats.data<T>() + (p * n + i) * 3; };
            double maximum = load(part(0)[0]), sum = 0, logit = 0;
            for (std::int64_t p = 1; p < parts; ++p) maximum = std::max<double>(maximum, load(part(p)[0]));
            for (std::int64_t p = 0; p < parts; ++p) {
                sum += load(part(p)[1]) * std::exp(load(part(p)[0]) - maximum);
                logit += load(part(p)[2]);
            }
            const double log_sum = maximum + std::log(sum);
            lse.data<T>()[i] = convert<T>(log_sum);
            if (targets.data<std::int32_t>()[i] >= 0) loss += log_sum - logit;
        }
    });
    return loss;
}

void cross_entropy_backward(Tensor logits, Tensor lse, Tensor targets, VocabRange range, double scale) {
    check_logits(logits, targets, range);
    check("softmax sums", lse, accumulate_type(logits.dtype()), {logits.dim(0)});
    if (logits.empty()) return;
    const std::int64_t width = logits.dim(1);
    dispatch(logits.dtype(), [&]<class T>() {
        for_rows(logits.dim(0), width, [=](std::int64_t i) {
            T* row = logits.data<T>() + i * width;
            const bool ignored = targets.data<std::int32_t>()[i] < 0;
            const std::int64_t count = ignored ? 0 : range.count;
            const Wide<T> factor = static_cast<Wide<T>>(scale), log_sum = lse.data<Wide<T>>()[i];
            const std::int64_t target = target_column(targets.data<std::int32_t>()[i], range);
            // Subtracted before rounding: softmax - 1 is small where the model is sure.
            const Wide<T> at_target =
                target >= 0 ? factor * (exponential(load(row[target]) - log_sum) - 1) : 0;
            scaled_softmax(row, log_sum, factor, count);
            if (target >= 0) row[target] = convert<T>(at_target);
            std::fill(row + count, row + width, T{});
        });
    });
}

}  // namespace switchyard::kernels

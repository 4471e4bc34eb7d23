// Logits are (vocabulary, tokens): a thread takes a chunk of neighbouring tokens and walks down rows, so
// accesses run along tokens and sums along rows need no other thread. Statistics are those of groups of rows,
// merged in order; groups do not depend on the device.
#include <cmath>
#include <limits>

#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "cuda/workspace.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cross_entropy.hpp"

namespace switchyard::kernels {
namespace {

using cuda::ceil_div;
using cuda::warp_size;

/// Rows of a group, whose exponentials one thread adds.
constexpr int group_rows = 256;
/// Rows that a thread holds in registers: the statistics take their maximum, then their exponentials; the
/// backward pass shares one read of sums and targets among them. In f64 exponentials need the registers; the
/// compiler spills a few even so.
template <class T>
constexpr int strip_rows = std::is_same_v<T, double> ? 2 : 8;

/// parts (groups, 2, tokens) <- maximum and sum of exp(logit - maximum) of each group of rows.
template <class T, int n>
__global__ void __launch_bounds__(256)
    group_statistics(const T* logits, Wide<T>* parts, std::int64_t rows, std::int64_t tokens) {
    using X = Wide<T>;
    const std::int64_t chunks = tokens / n, group = first_unit() / chunks, token = first_unit() % chunks * n;
    const std::int64_t end = std::min(rows, (group + 1) * group_rows);
    Chunk<X, n> most, sum{};
    for (int i = 0; i < n; ++i) most.x[i] = -std::numeric_limits<X>::infinity();
    if (group * group_rows >= end) return;
    for (std::int64_t row = group * group_rows; row < end; row += strip_rows<T>) {
        const int rows_left = static_cast<int>(end - row);
        Chunk<T, n> strip[strip_rows<T>];
        for (int r = 0; r < strip_rows<T>; ++r)
            if (r < rows_left) strip[r] = load_chunk<n>(logits + (row + r) * tokens + token);
        const Chunk<X, n> before = most;
        for (int r = 0; r < strip_rows<T>; ++r)
            for (int i = 0; i < n && r < rows_left; ++i)
                most.x[i] = wide(strip[r].x[i]) > most.x[i] ? wide(strip[r].x[i]) : most.x[i];
        for (int i = 0; i < n; ++i) sum.x[i] *= std::exp(before.x[i] - most.x[i]);
        for (int r = 0; r < strip_rows<T>; ++r)
            for (int i = 0; i < n && r < rows_left; ++i)
                sum.x[i] += std::exp(wide(strip[r].x[i]) - most.x[i]);
    }
    store_chunk(parts + 2 * group * tokens + token, most);
    store_chunk(parts + (2 * group + 1) * tokens + token, sum);
}

/// stats (3, tokens) <- the statistics of all groups together, and the logits of the targets.
template <class T>
__global__ void __launch_bounds__(256)
    merge_groups(const Wide<T>* parts, std::int64_t groups, const T* logits, const std::int32_t* targets,
                 VocabRange range, Wide<T>* stats, std::int64_t tokens) {
    using X = Wide<T>;
    const std::int64_t token = first_unit();
    if (token >= tokens) return;
    X most = -std::numeric_limits<X>::infinity(), sum = 0;
    for (std::int64_t g = 0; g < groups; ++g) {
        const X other = parts[2 * g * tokens + token];
        most = other > most ? other : most;
    }
    for (std::int64_t g = 0; g < groups; ++g)
        sum += parts[(2 * g + 1) * tokens + token] * std::exp(parts[2 * g * tokens + token] - most);
    const std::int64_t target = targets[token], row = target - range.begin;
    const bool here = target >= 0 && row >= 0 && row < range.count;
    stats[token] = most;
    stats[tokens + token] = sum;
    stats[2 * tokens + token] = here ? wide(logits[row * tokens + token]) : X(0);
}

/// lse (tokens), losses (tokens) <- from all_stats (parts, 3, tokens), parts in order.
template <class X>
__global__ void __launch_bounds__(256)
    combine(const X* all_stats, std::int64_t parts, const std::int32_t* targets, X* lse, double* losses,
            std::int64_t tokens) {
    const std::int64_t token = first_unit();
    if (token >= tokens) return;
    const auto part = [=](std::int64_t p, std::int64_t which) {
        return static_cast<double>(all_stats[(3 * p + which) * tokens + token]);
    };
    double most = part(0, 0), sum = 0, logit = 0;
    for (std::int64_t p = 1; p < parts; ++p) most = part(p, 0) > most ? part(p, 0) : most;
    for (std::int64_t p = 0; p < parts; ++p) {
        sum += part(p, 1) * std::exp(part(p, 0) - most);
        logit += part(p, 2);
    }
    const double log_sum = most + std::log(sum);
    lse[token] = static_cast<X>(log_sum);
    losses[token] = targets[token] >= 0 ? log_sum - logit : 0;
}

struct LossSums {
    double of_warps[32];
};

/// loss (1) += the sum of losses (tokens): a slice of neighbouring tokens a thread, then slices in a fixed
/// order.
__global__ void __launch_bounds__(1024) add_losses(const double* losses, std::int64_t tokens, double* loss) {
    auto& sums = cuda::block_memory<LossSums>();
    const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / warp_size;
    const std::int64_t slice = ceil_div(tokens, blockDim.x);
    double sum = 0;
    for (std::int64_t i = thread * slice; i < std::min(tokens, (thread + 1) * slice); ++i) sum += losses[i];
    sum = warp_sum(sum);
    if (thread % warp_size == 0) sums.of_warps[thread / warp_size] = sum;
    __syncthreads();
    if (thread > 0) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += sums.of_warps[w];
    *loss += total;
}

/// logits (all_rows, tokens) <- scale * (softmax - onehot(target)); rows from range.count on <- 0.
template <class T, int n>
__global__ void __launch_bounds__(256)
    backward(T* logits, const Wide<T>* lse, const std::int32_t* targets, VocabRange range, Wide<T> scale,
             std::int64_t all_rows, std::int64_t tokens) {
    using X = Wide<T>;
    const std::int64_t chunks = tokens / n, token = first_unit() % chunks * n;
    const std::int64_t row = first_unit() / chunks * strip_rows<T>;
    if (row >= all_rows) return;
    Chunk<T, n> strip[strip_rows<T>];
    for (int r = 0; r < strip_rows<T>; ++r)
        if (row + r < range.count) strip[r] = load_chunk<n>(logits + (row + r) * tokens + token);
    auto log_sum = load_chunk<n>(lse + token);
    const auto target = load_chunk<n>(targets + token);
    std::int64_t target_row[n];
    for (int i = 0; i < n; ++i) {
        target_row[i] = target.x[i] - range.begin - row;
        if (target.x[i] < 0) {  // the softmax is 0
            target_row[i] = -1;
            log_sum.x[i] = std::numeric_limits<X>::infinity();
        }
    }
    for (int r = 0; r < strip_rows<T>; ++r) {
        if (row + r >= all_rows) return;
        Chunk<T, n> out{};
        // Subtracted before rounding, because softmax - 1 is small where the model is sure.
        for (int i = 0; i < n && row + r < range.count; ++i)
            out.x[i] = narrow<T>(
                scale * (std::exp(wide(strip[r].x[i]) - log_sum.x[i]) - (target_row[i] == r ? X(1) : X(0))));
        store_chunk(logits + (row + r) * tokens + token, out);
    }
}

/// A thread for each of `threads`.
cuda::Grid one_each(std::int64_t threads) {
    const int block = block_threads(std::max<std::int64_t>(threads, 1));
    return {ceil_div(threads, block), block};
}

}  // namespace

/// Products of a chunk read and write the head's gradient and read its weight: with 256 MiB (4 160 tokens of
/// 32 000 rows in bf16) these are small beside the logits.
std::size_t logits_chunk_bytes() {
    return std::size_t{256} << 20;
}

void softmax_statistics(Tensor logits, Tensor targets, VocabRange range, Tensor stats) {
    count_kernel(__func__);
    check_logits(logits, targets, range);
    const std::int64_t tokens = logits.dim(1), groups = ceil_div(range.count, group_rows);
    check("softmax statistics", stats, accumulate_type(logits.dtype()), {3, tokens});
    if (tokens == 0) return;
    dispatch(logits.dtype(), [&]<class T>() {
        auto* const parts = cuda::workspace_of<Wide<T>>(2 * groups * tokens);
        with_chunks<T>(tokens % cuda::Vector<T>::size == 0 && aligned(logits), [&]<int n>() {
            cuda::launch(one_each(groups * (tokens / n)), group_statistics<T, n>, logits.data<const T>(),
                         parts, range.count, tokens);
        });
        cuda::launch(one_each(tokens), merge_groups<T>, parts, groups, logits.data<const T>(),
                     targets.data<const std::int32_t>(), range, stats.data<Wide<T>>(), tokens);
    });
}

void combine_statistics(Tensor all_stats, Tensor targets, Tensor lse, Tensor loss) {
    count_kernel(__func__);
    check_statistics(all_stats, targets, lse, loss);
    const std::int64_t parts = all_stats.dim(0), tokens = all_stats.dim(2);
    if (all_stats.empty()) return;
    auto* const losses = cuda::workspace_of<double>(tokens);
    dispatch(all_stats.dtype(), [&]<class T>() {
        if constexpr (!std::is_same_v<T, bf16>)
            cuda::launch(one_each(tokens), combine<T>, all_stats.data<const T>(), parts,
                         targets.data<const std::int32_t>(), lse.data<T>(), losses, tokens);
    });
    cuda::launch({1, block_threads(ceil_div(tokens, 4), 1024), sizeof(LossSums)}, add_losses, losses, tokens,
                 loss.data<double>());
}

void cross_entropy_backward(Tensor logits, Tensor lse, Tensor targets, VocabRange range, double scale) {
    count_kernel(__func__);
    check_logits(logits, targets, range);
    const std::int64_t rows = logits.dim(0), tokens = logits.dim(1);
    check("softmax sums", lse, accumulate_type(logits.dtype()), {tokens});
    if (logits.empty()) return;
    dispatch(logits.dtype(), [&]<class T>() {
        using X = Wide<T>;
        const bool vectors = tokens % cuda::Vector<T>::size == 0 && aligned(logits, lse, targets);
        with_chunks<T>(vectors, [&]<int n>() {
            cuda::launch(one_each(ceil_div(rows, strip_rows<T>) * (tokens / n)), backward<T, n>,
                         logits.data<T>(), lse.data<const X>(), targets.data<const std::int32_t>(), range,
                         static_cast<X>(scale), rows, tokens);
        });
    });
}

}  // namespace switchyard::kernels

// Attention on CUDA: checks its arguments, gives the shape that a library serves to it (choice.cpp), chooses
// between tensor cores (bf16 whose rows are whole 16-byte parts, head sizes to 128) and the SIMT kernels (all
// else), and finds the keys that each tile of queries may skip.
#include <algorithm>
#include <cmath>

#include "core/calls.hpp"
#include "cuda/kernels/attention/choice.hpp"
#include "cuda/kernels/attention/fused.hpp"
#include "cuda/kernels/attention/parts.cuh"

namespace switchyard::kernels {
namespace attention {
namespace {

/// A thread for each tile of each list of first keys (lists, tokens).
__global__ void find_bounds(const std::int32_t* first_key, KeyBounds* bounds, std::int64_t lists, int tokens,
                            int tile) {
    const int tiles = (tokens + tile - 1) / tile;
    const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= lists * tiles) return;
    const int begin = static_cast<int>(i % tiles) * tile, end = begin + tile < tokens ? begin + tile : tokens;
    const std::int32_t* list = first_key + i / tiles * tokens;
    KeyBounds result{list[begin], list[begin]};
    for (int t = begin + 1; t < end; ++t) {
        if (list[t] < result.lowest) result.lowest = list[t];
        if (list[t] > result.highest) result.highest = list[t];
    }
    bounds[i] = result;
}

/// The scratch of either pass: bounds (B, tiles), then delta (B, H, T).
struct Scratch {
    std::size_t delta_at, bytes;
    Scratch(const Extents& e, DType compute)
        : delta_at(aligned(e.b * cuda::ceil_div(e.t, Simt::tile) * sizeof(KeyBounds))),
          bytes(delta_at + aligned(e.b * e.h * e.t * size_of(accumulate_type(compute)))) {}
    static std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
};

Visible visible(Tensor first_key, Tensor scratch, const Extents& e, int tile) {
    if (first_key.empty()) return {};
    const bool shared = first_key.shape().rank() == 1;
    const std::int64_t lists = shared ? 1 : e.b, tiles = cuda::ceil_div(e.t, tile);
    auto* bounds = scratch.data<KeyBounds>();
    const int threads = block_threads(lists * tiles);
    cuda::launch({.blocks = cuda::ceil_div(lists * tiles, threads), .threads = threads}, find_bounds,
                 first_key.data<std::int32_t>(), bounds, lists, static_cast<int>(e.t), tile);
    return {.list = first_key.data<std::int32_t>(),
            .bounds = bounds,
            .list_stride = shared ? 0 : e.t,
            .bounds_stride = shared ? 0 : tiles};
}

/// True if all rows consist of whole 16-byte parts, which the tensor-core kernels copy.
bool suits_tensor_cores(const Extents& e, std::initializer_list<Tensor> tensors) {
    if (e.d > TensorCores::largest_size || e.d % 8 != 0) return false;
    return std::all_of(tensors.begin(), tensors.end(), [](Tensor x) {
        return x.dtype() == DType::bf16 && reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0;
    });
}

template <class T>
Inputs<T> inputs(Tensor q, Tensor k, Tensor v, const Visible& visible, const Extents& e) {
    return {.e = e,
            .scale = static_cast<Wide<T>>(1 / std::sqrt(static_cast<double>(e.d))),
            .visible = visible,
            .q = q.data<T>(),
            .k = k.data<T>(),
            .v = v.data<T>()};
}

}  // namespace
}  // namespace attention

std::size_t attention_scratch_bytes(const Shape& q, const Shape& k, DType compute) {
    const attention::Extents e = attention::extents_of(q, k);
    return std::max(attention::Scratch(e, compute).bytes, attention::fused_scratch_bytes(e, compute));
}

void attention_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch) {
    count_kernel(__func__);
    const attention::Extents e = attention::check_forward(q, k, v, first_key, o, lse, scratch);
    if (q.empty()) return;
    if (attention::is_fused(e, first_key, {q, k, v, o}))
        return attention::fused::forward(e, q, k, v, o, lse, scratch);
    const bool tensor_cores = attention::suits_tensor_cores(e, {q, k, v, o});
    const attention::Visible visible = attention::visible(
        first_key, scratch, e, tensor_cores ? attention::TensorCores::tile : attention::Simt::tile);
    dispatch(q.dtype(), [&]<class T>() {
        const attention::Forward<T> a{attention::inputs<T>(q, k, v, visible, e), o.data<T>(),
                                      lse.data<Wide<T>>()};
        if constexpr (std::is_same_v<T, bf16>)
            if (tensor_cores) return attention::TensorCores::forward(a);
        attention::Simt::forward(a);
    });
}

void attention_backward(const AttentionBackward& x) {
    count_kernel(__func__);
    const attention::Extents e = attention::check_backward(x);
    if (x.q.empty()) return;
    if (attention::is_fused(e, x.first_key, {x.q, x.k, x.v, x.o, x.d_o, x.d_q, x.d_k, x.d_v}))
        return attention::fused::backward(e, x);
    const bool tensor_cores =
        attention::suits_tensor_cores(e, {x.q, x.k, x.v, x.o, x.d_o, x.d_q, x.d_k, x.d_v});
    const attention::Visible visible = attention::visible(
        x.first_key, x.scratch, e, tensor_cores ? attention::TensorCores::tile : attention::Simt::tile);
    dispatch(x.q.dtype(), [&]<class T>() {
        const attention::Scratch layout(e, x.q.dtype());
        const attention::Backward<T> a{
            attention::inputs<T>(x.q, x.k, x.v, visible, e),
            x.o.data<T>(),
            x.d_o.data<T>(),
            x.lse.data<Wide<T>>(),
            reinterpret_cast<Wide<T>*>(x.scratch.data<std::byte>() + layout.delta_at),
            x.d_q.data<T>(),
            x.d_k.data<T>(),
            x.d_v.data<T>()};
        if constexpr (std::is_same_v<T, bf16>)
            if (tensor_cores) return attention::TensorCores::backward(a);
        attention::Simt::backward(a);
    });
}

}  // namespace switchyard::kernels

// Storing and loading words is elementwise. Products are added in tiles (tiles.cuh) and, where weights
// of two words are merged, by tensor cores (merge.cu). Nothing needs scratch memory.
#include "core/calls.hpp"
#include "cuda/kernels/frozen/merge.cuh"
#include "cuda/kernels/frozen/tiles.cuh"
#include "kernels/checks/frozen.hpp"
#include "kernels/frozen_weight.hpp"

namespace switchyard::kernels {
namespace {

struct Split {
    const float* value;
    Words<bf16> words;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const auto values = load_chunk<n>(value + at);
        Piece<bf16, n> piece;
        for (int i = 0; i < n; ++i) piece.set(i, values.x[i]);
        store_chunk(words.hi + at, piece.hi);
        store_chunk(words.lo + at, piece.lo);
    }
};

struct Join {
    Words<bf16> words;
    float* value;

    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const Piece<bf16, n> piece{load_chunk<n>(words.hi + at), load_chunk<n>(words.lo + at)};
        Chunk<float, n> values;
        for (int i = 0; i < n; ++i) values.x[i] = piece.value(i);
        store_chunk(value + at, values);
    }
};

void copy_all(Tensor from, Tensor to) {
    if (from.raw() == to.raw() || to.empty()) return;
    SWITCHYARD_CUDA(
        cudaMemcpyAsync(to.raw(), from.raw(), to.bytes(), cudaMemcpyDeviceToDevice, cuda::compute_stream()));
}

}  // namespace

void store_frozen(Tensor value, FrozenWeight w) {
    count_kernel(__func__);
    check_value(value, w);
    if (!is_split(w)) return copy_all(value, w.hi);
    for_elements<bf16>(value.size(), aligned(value, w.hi, w.lo),
                       Split{value.data<float>(), words_of<bf16>(w)});
}

void load_frozen(FrozenWeight w, Tensor value) {
    count_kernel(__func__);
    check_value(value, w);
    if (!is_split(w)) return copy_all(w.hi, value);
    for_elements<bf16>(value.size(), aligned(value, w.hi, w.lo),
                       Join{words_of<bf16>(w), value.data<float>()});
}

void add_low_rank(FrozenWeight w, const LowRankFactors& factors, Tensor /*scratch*/, double base) {
    count_kernel(__func__);
    check_add_low_rank(w, factors);
    if (w.hi.empty() || (factors.a.dim(0) == 0 && base == 1)) return;
    dispatch(w.hi.dtype(), [&]<class T>() {
        const Words<T> words = words_of<T>(w);
        launch_form_tiles<T, Wide<T>, Wide<T>>(words, words, {.factors = factors, .base = base}, w.hi.dim(0),
                                               w.hi.dim(1), aligned(w.hi, w.lo));
    });
}

void merge(FrozenWeight w, const EffectiveWeight& effective, Tensor merged, Tensor /*scratch*/) {
    count_kernel(__func__);
    check_merge(w, effective, merged);
    if (merged.empty()) return;
    dispatch(w.hi.dtype(), [&]<class T>() {
        if constexpr (std::is_same_v<T, bf16>)
            merge_split(w, effective, merged);
        else
            launch_form_tiles<T, T, T>(words_of<T>(w), {merged.data<T>(), nullptr}, effective, w.hi.dim(0),
                                       w.hi.dim(1), aligned(w.hi, merged));
    });
}

std::size_t frozen_scratch_bytes(std::int64_t, std::int64_t, DType) {
    return 0;
}

}  // namespace switchyard::kernels

// What the kernels of attention share: their arguments, the rows of a head, and the keys that the queries of
// a tile see. Blocks of the forward pass and of d_q own a tile of queries of one head, blocks of d_k and d_v
// a tile of keys of one key-value head, so that no two blocks add to one place. Private to attention*.cu.
#pragma once

#include <cstdint>

#include "cuda/kernels/numbers.cuh"
#include "kernels/attention_sizes.hpp"

namespace switchyard::kernels::attention {

/// The lowest and the highest first key among the queries of a tile.
struct KeyBounds {
    std::int32_t lowest, highest;
};

/// Which keys queries see. `list` and `bounds` are null if each sees all keys up to itself; strides are from
/// one sequence to the next.
struct Visible {
    const std::int32_t* list;  // (T) or (B, T)
    const KeyBounds* bounds;   // (tiles) or (B, tiles)
    std::int64_t list_stride, bounds_stride;

    __device__ int first_key(std::int64_t b, int query) const {
        return list ? list[b * list_stride + query] : 0;
    }
    __device__ KeyBounds bounds_of(std::int64_t b, int tile) const {
        return bounds ? bounds[b * bounds_stride + tile] : KeyBounds{0, 0};
    }
};

template <class T>
struct Inputs {
    Extents e;
    Wide<T> scale;  // 1 / sqrt(D)
    Visible visible;
    const T *q, *k, *v;
};
template <class T>
struct Forward : Inputs<T> {
    T* o;
    Wide<T>* lse;
};
template <class T>
struct Backward : Inputs<T> {
    const T *o, *d_o;
    const Wide<T>* lse;
    Wide<T>* delta;  // (B, H, T): sum over D of o d_o, written with d_q and read for d_k, d_v
    T *d_q, *d_k, *d_v;
};

/// One head's (T, D) matrix in a (B, T, heads, D) tensor.
template <class T>
struct Head {
    T* data;
    std::int64_t stride;
    __device__ T* row(int t) const { return data + t * stride; }
};
template <class T>
__device__ Head<T> head_of(T* x, const Extents& e, std::int64_t heads, std::int64_t b, std::int64_t head) {
    return {x + b * e.t * heads * e.d + head * e.d, heads * e.d};
}

/// exp(min(x, 0)): a weight recomputed from its row's lse, which rounding must not carry above one. NaN
/// stays.
__device__ inline float weight_of(float x) {
    return expf(x > 0 ? 0 : x);
}
__device__ inline double weight_of(double x) {
    return exp(x > 0 ? 0 : x);
}

/// For all types and head sizes; `tile`: the queries of whose KeyBounds a path reads one.
struct Simt {
    static constexpr int tile = 32;
    template <class T>
    static void forward(const Forward<T>&);
    template <class T>
    static void backward(const Backward<T>&);
};
/// For bf16 with head sizes to 128, a multiple of 8, and tensors that begin at a multiple of 16 bytes.
struct TensorCores {
    static constexpr int tile = 64, largest_size = 128;
    static void forward(const Forward<bf16>&);
    static void backward(const Backward<bf16>&);
};

}  // namespace switchyard::kernels::attention

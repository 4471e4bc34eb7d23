// A thread sums 16 bytes of elements, over the ranks in their order: additions alone, so the bits are those
// of src/comm/ordered_sum.cpp. (P + 1) bytes are moved for each byte of the result.
#include "cuda/comm/rank_sum.hpp"
#include "cuda/device.cuh"
#include "cuda/kernels/numbers.cuh"

namespace switchyard::cuda {
namespace {

template <class T>
struct Values {
    const T *own, *others;
    std::int64_t stride, count;
    int ranks, rank;

    __device__ const T* of(int p) const { return p == rank ? own : others + p * stride; }
};

template <class T>
__device__ void sum_one(T* sum, const Values<T>& values, std::int64_t i) {
    kernels::Wide<T> total = kernels::wide(values.of(0)[i]);
    for (int p = 1; p < values.ranks; ++p) total += kernels::wide(values.of(p)[i]);
    sum[i] = kernels::narrow<T>(total);
}

/// `vectors`: all addresses are multiples of 16.
template <class T>
__global__ void sum_ranks(T* sum, Values<T> values, bool vectors) {
    constexpr int size = Vector<T>::size;
    const std::int64_t begin = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * size;
    if (!vectors || begin + size > values.count) {
        for (std::int64_t i = begin; i < begin + size && i < values.count; ++i) sum_one(sum, values, i);
        return;
    }
    kernels::Wide<T> total[size];
    const Vector<T> first = *reinterpret_cast<const Vector<T>*>(values.of(0) + begin);
    for (int j = 0; j < size; ++j) total[j] = kernels::wide(first.x[j]);
    for (int p = 1; p < values.ranks; ++p) {
        const Vector<T> part = *reinterpret_cast<const Vector<T>*>(values.of(p) + begin);
        for (int j = 0; j < size; ++j) total[j] += kernels::wide(part.x[j]);
    }
    Vector<T> result;
    for (int j = 0; j < size; ++j) result.x[j] = kernels::narrow<T>(total[j]);
    *reinterpret_cast<Vector<T>*>(sum + begin) = result;
}

bool is_aligned(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

}  // namespace

void sum_in_rank_order(DType dtype, void* sum, const RankValues& v, cudaStream_t stream) {
    if (v.count == 0) return;  // the last ranks of a small tensor
    kernels::dispatch(dtype, [&]<class T>() {
        const Values<T> values{static_cast<const T*>(v.own),
                               static_cast<const T*>(v.others),
                               v.stride,
                               v.count,
                               v.ranks,
                               v.rank};
        const bool vectors = is_aligned(sum) && is_aligned(v.own) && is_aligned(v.others) &&
                             v.stride * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
        const std::int64_t work = ceil_div(v.count, Vector<T>::size);
        const int threads = kernels::block_threads(work);
        launch(stream, {.blocks = ceil_div(work, threads), .threads = threads}, sum_ranks<T>,
               static_cast<T*>(sum), values, vectors);
    });
}

}  // namespace switchyard::cuda

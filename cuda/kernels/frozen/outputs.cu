// A block takes 4096 elements, thread t every 256th of them; a second launch adds the sums of the blocks,
// which are in the workspace, in a fixed order. The bits do not depend on the GPU.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "cuda/kernels/frozen/block_sum.cuh"
#include "cuda/workspace.hpp"
#include "kernels/checks/outputs.hpp"

namespace switchyard::kernels {
namespace {

using cuda::ceil_div;

constexpr int block = WarpSums::threads;
constexpr std::int64_t elements_of_block = 16 * block;

template <class T>
struct AddBias {
    T* y;
    const Wide<T>* bias;
    std::int64_t width;

    /// The element as it is stored.
    __device__ T at(std::int64_t i) const {
        if (bias == nullptr) return y[i];
        const T value = narrow<T>(wide(y[i]) + bias[i % width]);
        y[i] = value;
        return value;
    }
    template <int n>
    __device__ void operator()(std::int64_t i) const {
        at(i);
    }
};

/// parts[block] <- the sum of squares of the block's differences.
template <class T>
__global__ void __launch_bounds__(block)
    subtract(AddBias<T> y, T* teacher, std::int64_t size, Wide<T> scale, double* parts) {
    const std::int64_t start = std::int64_t{blockIdx.x} * elements_of_block,
                       end = std::min(size, start + elements_of_block);
    double sum = 0;
    for (std::int64_t i = start + threadIdx.x; i < end; i += block) {
        const Wide<T> difference = wide(y.at(i)) - wide(teacher[i]);
        sum += static_cast<double>(difference) * static_cast<double>(difference);
        teacher[i] = narrow<T>(scale * difference);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(block)
    add_parts(const double* parts, std::int64_t count, double weight, double* sum) {
    double mine = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += block) mine += parts[i];
    mine = block_sum(mine);
    if (threadIdx.x == 0) *sum += weight * mine;
}

}  // namespace

void finish_output(const FinishedOutput& o) {
    count_kernel(__func__);
    check_output(o);
    if (o.y.empty() || (o.bias.empty() && o.teacher.empty())) return;
    const std::int64_t size = o.y.size(), blocks = ceil_div(size, elements_of_block);
    auto* parts = o.teacher.empty() ? nullptr : cuda::workspace_of<double>(blocks);
    dispatch(o.y.dtype(), [&]<class T>() {
        const AddBias<T> y{o.y.data<T>(), o.bias.empty() ? nullptr : o.bias.data<Wide<T>>(), o.y.dim(1)};
        if (o.teacher.empty()) return for_elements<T>(size, false, y);
        cuda::launch({blocks, block, sizeof(WarpSums)}, subtract<T>, y, o.teacher.data<T>(), size,
                     static_cast<Wide<T>>(o.scale), parts);
    });
    if (o.teacher.empty() || o.sum.empty()) return;
    cuda::launch({1, block, sizeof(WarpSums)}, add_parts, static_cast<const double*>(parts), blocks, o.weight,
                 o.sum.data<double>());
}

}  // namespace switchyard::kernels

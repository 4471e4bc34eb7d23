// Matrix products. CPU: oneDNN (f32, bf16), plain blocked loops (f64). CUDA: cuBLASLt. What a library
// prepares for a shape is kept.
#pragma once

#include <string>

#include "core/tensor.hpp"

namespace switchyard::kernels {

enum class Op { none, transpose };
enum class Write { overwrite, accumulate };

/// c = alpha * op(a) op(b), or c += alpha * op(a) op(b) with `accumulate`.
/// op(a) is (M, K), op(b) is (K, N), c is (M, N), all 2-D and contiguous; a and b share a dtype, c has that
/// dtype or its accumulate_type. Sums run in accumulate_type and are rounded once to c's dtype. A row of c
/// equals the same row of a product over fewer rows of op(a) only up to rounding. Throws InternalError on
/// shapes or dtypes that do not fit.
struct Matmul {
    Tensor a, b, c;
    Op op_a = Op::none, op_b = Op::none;
    double alpha = 1.0;
    bool accumulate = false;
};
void matmul(const Matmul&);

/// The best rate of a large square product in `dtype` with the current threads, in FLOP/s, measured now
/// (takes about 0.1 s).
double measure_peak_flops(DType dtype);

/// The size n of a square product (n x n x n) that keeps this processor busy long enough to measure its rate.
std::int64_t peak_product_size(DType dtype);

/// Name and version of the library that computes the products.
std::string matmul_library();

/// The number of OpenMP threads of this rank: a CPU's kernels use them, and whatever the host does beside a
/// GPU.
int num_threads();

}  // namespace switchyard::kernels

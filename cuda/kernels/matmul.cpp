// Matrix products by cuBLASLt. Its matrices are column-major, in which a row-major matrix is its own
// transpose: c = a b is asked for as c' = b' a', and nothing moves. A plan (descriptors and algorithm) is
// made once for each kind of product and takes the first choice of the library's heuristic, never the fastest
// of a trial, so that a run that resumes computes the same bits. Products run on the compute stream alone:
// one workspace serves all.
#include "kernels/matmul.hpp"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <source_location>

#include "core/calls.hpp"
#include "core/error.hpp"
#include "cuda/runtime.hpp"
#include "cuda/workspace.hpp"
#include "kernels/product_sizes.hpp"

namespace switchyard::kernels {
namespace {

void check_call(cublasStatus_t status, const char* call, const std::source_location& where) {
    internal_check(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: {}: {} ({}:{})", call,
                   cublasLtGetStatusString(status), where.file_name(), where.line());
}
#define SWITCHYARD_CUBLAS(call) check_call((call), #call, std::source_location::current())

/// What a plan depends on.
struct Kind {
    std::int64_t m = 0, n = 0, k = 0;
    Op op_a = Op::none, op_b = Op::none;
    DType in = DType::f32, out = DType::f32;
    bool accumulate = false;
    std::array<std::uint32_t, 3> alignment{};  // of a, b and c, in bytes

    auto operator<=>(const Kind&) const = default;
};

/// Lives as long as the process, as the library's handle does: neither may be destroyed after the driver.
struct Plan {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
};

cublasLtHandle_t library() {
    static const cublasLtHandle_t handle = [] {
        cublasLtHandle_t created = nullptr;
        SWITCHYARD_CUBLAS(cublasLtCreate(&created));
        return created;
    }();
    return handle;
}

cudaDataType type_of(DType dtype) {
    return dtype == DType::bf16 ? CUDA_R_16BF : dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F;
}

/// The largest power of two, up to the alignment of allocations, that divides the address.
std::uint32_t alignment_of(Tensor tensor) {
    constexpr std::uintptr_t most = 256;
    return static_cast<std::uint32_t>(std::min(
        most, std::uintptr_t{1} << std::countr_zero(reinterpret_cast<std::uintptr_t>(tensor.raw()))));
}

cublasLtMatrixLayout_t layout(DType dtype, Tensor row_major) {
    cublasLtMatrixLayout_t created = nullptr;
    SWITCHYARD_CUBLAS(
        cublasLtMatrixLayoutCreate(&created, type_of(dtype), static_cast<std::uint64_t>(row_major.dim(1)),
                                   static_cast<std::uint64_t>(row_major.dim(0)), row_major.dim(1)));
    return created;
}

cublasLtMatmulDesc_t description(const Kind& kind) {
    const bool f64 = kind.in == DType::f64;
    cublasLtMatmulDesc_t created = nullptr;
    // COMPUTE_32F multiplies f32 in full: TF32 is another type of computation.
    SWITCHYARD_CUBLAS(cublasLtMatmulDescCreate(&created, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                               f64 ? CUDA_R_64F : CUDA_R_32F));
    // The library's first factor is b, its second a.
    const cublasOperation_t first = kind.op_b == Op::transpose ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = kind.op_a == Op::transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    SWITCHYARD_CUBLAS(
        cublasLtMatmulDescSetAttribute(created, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    SWITCHYARD_CUBLAS(
        cublasLtMatmulDescSetAttribute(created, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    return created;
}

/// What the heuristic may choose from. Partial sums over k are stored as they are summed and added in a
/// kernel of their own: stored as bf16 they would be rounded twice, and added in place they wait for each
/// other.
cublasLtMatmulPreference_t preference(const Kind& kind) {
    cublasLtMatmulPreference_t created = nullptr;
    SWITCHYARD_CUBLAS(cublasLtMatmulPreferenceCreate(&created));
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
        SWITCHYARD_CUBLAS(cublasLtMatmulPreferenceSetAttribute(created, attribute, &value, sizeof value));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{cuda::usual_workspace_bytes});
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kind.alignment[1]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kind.alignment[0]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kind.alignment[2]);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kind.alignment[2]);
    return created;
}

Plan make_plan(const Kind& kind, const Matmul& p) {
    Plan plan{description(kind), layout(kind.in, p.a), layout(kind.in, p.b), layout(kind.out, p.c), {}};
    const cublasLtMatmulPreference_t wanted = preference(kind);
    cublasLtMatmulHeuristicResult_t found{};
    int num_found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        library(), plan.product, plan.b, plan.a, plan.c, plan.c, wanted, 1, &found, &num_found);
    internal_check(status == CUBLAS_STATUS_SUCCESS && num_found == 1 && found.state == CUBLAS_STATUS_SUCCESS,
                   "cuBLASLt has no algorithm for {} (m {}, n {}, k {}) into {}: {}", name_of(kind.in),
                   kind.m, kind.n, kind.k, name_of(kind.out),
                   cublasLtGetStatusString(status != CUBLAS_STATUS_SUCCESS ? status : found.state));
    SWITCHYARD_CUBLAS(cublasLtMatmulPreferenceDestroy(wanted));
    plan.algorithm = found.algo;
    return plan;
}

const Plan& plan_for(const ProductSizes& sizes, const Matmul& p) {
    const Kind kind{sizes.m,     sizes.n,      sizes.k,
                    p.op_a,      p.op_b,       p.a.dtype(),
                    p.c.dtype(), p.accumulate, {alignment_of(p.a), alignment_of(p.b), alignment_of(p.c)}};
    static auto* const plans = new std::map<Kind, Plan>;
    const auto found = plans->find(kind);
    return found != plans->end() ? found->second : plans->emplace(kind, make_plan(kind, p)).first->second;
}

}  // namespace

void matmul(const Matmul& p) {
    count_kernel(__func__);
    const ProductSizes sizes = product_sizes(p);
    if (sizes.m == 0 || sizes.n == 0) return;
    if (sizes.k == 0) {
        if (!p.accumulate)
            SWITCHYARD_CUDA(cudaMemsetAsync(p.c.raw(), 0, p.c.bytes(), cuda::compute_stream()));
        return;
    }
    const Plan& plan = plan_for(sizes, p);
    const bool f64 = p.a.dtype() == DType::f64;
    const double alpha = p.alpha, beta = p.accumulate ? 1 : 0;
    const float narrow_alpha = static_cast<float>(alpha), narrow_beta = static_cast<float>(beta);
    const void* const factors[] = {f64 ? static_cast<const void*>(&alpha) : &narrow_alpha,
                                   f64 ? static_cast<const void*>(&beta) : &narrow_beta};
    count_call(Call::launch);
    SWITCHYARD_CUBLAS(cublasLtMatmul(library(), plan.product, factors[0], p.b.raw(), plan.b, p.a.raw(),
                                     plan.a, factors[1], p.c.raw(), plan.c, p.c.raw(), plan.c,
                                     &plan.algorithm, cuda::workspace(cuda::usual_workspace_bytes),
                                     cuda::usual_workspace_bytes, cuda::compute_stream()));
}

/// Grows with the device: 8,192 on an H100, 1.5 ms. f32 and f64 are slower by 10 and more.
std::int64_t peak_product_size(DType dtype) {
    constexpr std::int64_t per_multiprocessor = 64, step = 256, most = 8192;
    const std::int64_t n = cuda::multiprocessors() * per_multiprocessor / step * step;
    return std::clamp(dtype == DType::bf16 ? n : n / 2, step, most);
}

std::string matmul_library() {
    const std::size_t version = cublasLtGetVersion();
    return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

int num_threads() {
    return omp_get_max_threads();
}

}  // namespace switchyard::kernels

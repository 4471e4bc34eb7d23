// cuBLASLt by loops on the host. A product is checked when it is asked for, as the library checks it, and
// computed when its stream comes to it. Where the library may choose, the choice is the least convenient one
// that was allowed: sums over a long k are cut, and partial sums are stored in the type of the result if
// nobody forbade it.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fibers.hpp"
#include "host_product.hpp"
#include "stream_log.hpp"

struct EmulatedProducts {};
struct EmulatedLayout {
    cudaDataType type;
    std::uint64_t rows, columns;
    std::int64_t leading;
};
struct EmulatedProduct {
    cublasComputeType_t compute;
    cudaDataType scale;
    std::array<cublasOperation_t, 2> operations{CUBLAS_OP_N, CUBLAS_OP_N};
};
struct EmulatedPreference {
    std::uint64_t workspace = 0;
    std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    std::array<std::uint32_t, 4> alignments{256, 256, 256, 256};
};

namespace {

struct Algorithm {  // in the 64 bytes of cublasLtMatmulAlgo_t
    std::int64_t m, n, k;
    std::uint32_t parts;  // that the sum over k is cut into
    std::uint32_t scheme;
    std::array<std::uint32_t, 4> alignments;
    std::array<std::uint32_t, 4> unused;
};
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));

std::size_t size_of(cudaDataType type) {
    return type == CUDA_R_16BF ? 2 : type == CUDA_R_32F ? 4 : 8;
}

/// A product as it was asked for.
struct Job {
    std::int64_t m = 0, n = 0, k = 0;
    bool a_transposed = false, b_transposed = false;
    EmulatedLayout a{}, b{}, c{}, d{};
    const void *a_data = nullptr, *b_data = nullptr, *c_data = nullptr;
    void *d_data = nullptr, *workspace = nullptr;
    double alpha = 1, beta = 0;
    Algorithm algorithm{};
};

bool is_supported(const EmulatedProduct& product, const EmulatedLayout& a, const EmulatedLayout& b,
                  const EmulatedLayout& c, const EmulatedLayout& d) {
    if (a.type != b.type || c.type != d.type) return false;
    if (product.compute == CUBLAS_COMPUTE_64F)
        return product.scale == CUDA_R_64F && a.type == CUDA_R_64F && c.type == CUDA_R_64F;
    return product.scale == CUDA_R_32F &&
           ((a.type == CUDA_R_16BF && (c.type == CUDA_R_16BF || c.type == CUDA_R_32F)) ||
            (a.type == CUDA_R_32F && c.type == CUDA_R_32F));
}

/// Fills in sizes and layouts.
cublasStatus_t describe(const EmulatedProduct* product, const EmulatedLayout* a, const EmulatedLayout* b,
                        const EmulatedLayout* c, const EmulatedLayout* d, Job& job) {
    if (!product || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    job.a = *a, job.b = *b, job.c = *c, job.d = *d;
    job.a_transposed = product->operations[0] == CUBLAS_OP_T;
    job.b_transposed = product->operations[1] == CUBLAS_OP_T;
    job.m = static_cast<std::int64_t>(job.a_transposed ? a->columns : a->rows);
    job.k = static_cast<std::int64_t>(job.a_transposed ? a->rows : a->columns);
    job.n = static_cast<std::int64_t>(job.b_transposed ? b->rows : b->columns);
    const auto m = static_cast<std::uint64_t>(job.m), n = static_cast<std::uint64_t>(job.n);
    const auto k_of_b = job.b_transposed ? b->columns : b->rows;
    if (static_cast<std::uint64_t>(job.k) != k_of_b || c->rows != m || c->columns != n || d->rows != m ||
        d->columns != n || m * n * k_of_b == 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const EmulatedLayout* layout : {a, b, c, d})
        if (layout->leading < static_cast<std::int64_t>(layout->rows)) return CUBLAS_STATUS_INVALID_VALUE;
    return is_supported(*product, *a, *b, *c, *d) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

std::size_t size_of_partial(const Job& job) {
    if (job.algorithm.scheme == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE) return size_of(job.d.type);
    return job.a.type == CUDA_R_64F ? 8 : 4;
}

std::size_t workspace_of(const Job& job) {
    if (job.algorithm.parts == 1) return 0;
    return static_cast<std::size_t>(job.m * job.n * job.algorithm.parts) * size_of_partial(job);
}

void choose(Job& job, const EmulatedPreference& preference) {
    Algorithm& algorithm = job.algorithm;
    algorithm = {job.m, job.n, job.k, 1, CUBLASLT_REDUCTION_SCHEME_NONE, preference.alignments, {}};
    const bool long_sum = job.k >= 1024 && job.k > job.m && job.k > job.n;
    for (auto scheme : {CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}) {
        if (!long_sum || algorithm.parts > 1 || !(preference.schemes & scheme)) continue;
        algorithm.scheme = scheme, algorithm.parts = 4;
        if (workspace_of(job) > preference.workspace)
            algorithm.scheme = CUBLASLT_REDUCTION_SCHEME_NONE, algorithm.parts = 1;
    }
}

/// The bytes from the first element of a matrix to its last one.
std::size_t extent(const EmulatedLayout& layout) {
    return (static_cast<std::size_t>(layout.leading) * (layout.columns - 1) + layout.rows) *
           size_of(layout.type);
}

emulation::HostMatrix matrix(const void* data, const EmulatedLayout& layout, bool transposed) {
    using emulation::Number;
    const Number number = layout.type == CUDA_R_16BF  ? Number::bf16
                          : layout.type == CUDA_R_32F ? Number::f32
                                                      : Number::f64;
    return {const_cast<void*>(data), number, transposed ? layout.leading : 1,
            transposed ? 1 : layout.leading};
}

void require_device_memory(const void* start, const EmulatedLayout& layout, const char* name) {
    if (!emulation::is_device_memory(start, extent(layout)))
        emulation::error(
            emulation::Where::current(),
            "cublasLtMatmul: %s (%llu x %llu, leading dimension %lld) does not lie in device memory", name,
            static_cast<unsigned long long>(layout.rows), static_cast<unsigned long long>(layout.columns),
            static_cast<long long>(layout.leading));
}

void execute(const Job& job) {
    require_device_memory(job.a_data, job.a, "a");
    require_device_memory(job.b_data, job.b, "b");
    if (job.beta != 0) require_device_memory(job.c_data, job.c, "c");
    require_device_memory(job.d_data, job.d, "d");
    if (workspace_of(job) > 0 && !emulation::is_device_memory(job.workspace, workspace_of(job)))
        emulation::error(emulation::Where::current(),
                         "cublasLtMatmul: the workspace does not lie in device memory");
    emulation::HostProduct product{.m = job.m, .n = job.n, .k = job.k, .alpha = job.alpha, .beta = job.beta};
    product.a = matrix(job.a_data, job.a, job.a_transposed);
    product.b = matrix(job.b_data, job.b, job.b_transposed);
    product.c = matrix(job.c_data, job.c, false);
    product.d = matrix(job.d_data, job.d, false);
    product.parts = job.algorithm.parts, product.partial = job.workspace;
    product.partial_as_result = job.algorithm.scheme == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    multiply(product);
}

template <class T>
cublasStatus_t create(T** object, T value) {
    if (!object) return CUBLAS_STATUS_INVALID_VALUE;
    *object = new T(value);
    return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t destroy(T* object) {
    delete object;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t take(const void* value, std::size_t bytes, T& into) {
    if (!value || bytes != sizeof into) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&into, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

double factor(const void* host, cudaDataType scale) {
    return scale == CUDA_R_64F ? *static_cast<const double*>(host) : *static_cast<const float*>(host);
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS:
            return "success";
        case CUBLAS_STATUS_NOT_INITIALIZED:
            return "the library was not initialized";
        case CUBLAS_STATUS_INVALID_VALUE:
            return "an unsupported value or parameter was passed to the function";
        default:
            return "the functionality requested is not supported";
    }
}

std::size_t cublasLtGetVersion() {
    return 130000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    return create(handle, EmulatedProducts{});
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return destroy(handle);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t leading_dimension) {
    return create(layout, EmulatedLayout{type, rows, columns, leading_dimension});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return destroy(layout);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t compute,
                                        cudaDataType scale) {
    return create(product, EmulatedProduct{compute, scale});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
    return destroy(product);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
    return take(value, bytes, product->operations[attribute == CUBLASLT_MATMUL_DESC_TRANSB]);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    return create(preference, EmulatedPreference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    return destroy(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return take(value, bytes, preference->workspace);
    if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return take(value, bytes, preference->schemes);
    return take(value, bytes, preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES]);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t found[], int* num_found) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!preference || !found || !num_found || most <= 0) return CUBLAS_STATUS_INVALID_VALUE;
    *num_found = 0;
    Job job;
    if (const cublasStatus_t status = describe(product, a, b, c, d, job); status != CUBLAS_STATUS_SUCCESS)
        return status;
    choose(job, *preference);
    found[0] = {{}, workspace_of(job), CUBLAS_STATUS_SUCCESS, 1.0f, {}};
    std::memcpy(&found[0].algo, &job.algorithm, sizeof job.algorithm);
    *num_found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    Job job{.a_data = a, .b_data = b, .c_data = c, .d_data = d, .workspace = workspace};
    if (!alpha || !beta || !a || !b || !c || !d || !algorithm) return CUBLAS_STATUS_INVALID_VALUE;
    if (const cublasStatus_t status = describe(product, a_layout, b_layout, c_layout, d_layout, job);
        status != CUBLAS_STATUS_SUCCESS)
        return status;
    job.alpha = factor(alpha, product->scale), job.beta = factor(beta, product->scale);
    std::memcpy(&job.algorithm, algorithm, sizeof job.algorithm);
    const Algorithm& chosen = job.algorithm;
    if (chosen.m != job.m || chosen.n != job.n || chosen.k != job.k || workspace_of(job) > workspace_bytes ||
        (c == d && job.c.leading != job.d.leading))
        return CUBLAS_STATUS_INVALID_VALUE;
    const void* const matrices[] = {a, b, c, d};
    for (int i = 0; i < 4; ++i)
        if (reinterpret_cast<std::uintptr_t>(matrices[i]) % chosen.alignments[i])
            return CUBLAS_STATUS_NOT_SUPPORTED;
    emulation::enqueue_work(stream, "product", [job] { execute(job); });
    return CUBLAS_STATUS_SUCCESS;
}

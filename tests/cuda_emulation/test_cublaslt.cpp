// The emulated cuBLASLt refuses what the library refuses, and finds what the library would compute wrongly
// without a word. What it computes is tested by tests/kernels/test_matmul.cpp.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include "cuda/runtime.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

struct Layout {
    cudaDataType type;
    std::uint64_t rows, columns;
    std::int64_t leading;
};

/// c (m, n) = a (m, k) b (k, n), column-major: the arguments of the library, each of which may be changed.
struct Product {
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    cudaDataType scale = CUDA_R_32F;
    cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
    Layout a, b, c, d;
    const void *a_data, *b_data;
    void* d_data;
    std::uint32_t alignment = 256, schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    std::uint64_t workspace_bytes = 0;
    cublasLtMatmulHeuristicResult_t found{};

    Product(cudaDataType in, cudaDataType out, const HostTensor& left, const HostTensor& right,
            const HostTensor& result, std::uint64_t m, std::uint64_t n, std::uint64_t k)
        : a{in, m, k, static_cast<std::int64_t>(m)},
          b{in, k, n, static_cast<std::int64_t>(k)},
          c{out, m, n, static_cast<std::int64_t>(m)},
          d(c),
          a_data(Tensor(left).raw()),
          b_data(Tensor(right).raw()),
          d_data(Tensor(result).raw()) {}

    static void* workspace() {
        static const HostTensor memory = scratch_of(1 << 16);
        return Tensor(memory).raw();
    }
    template <class Call>
    cublasStatus_t with_descriptors(Call call) {
        cublasLtHandle_t handle = nullptr;
        cublasLtCreate(&handle);
        cublasLtMatmulDesc_t product = nullptr;
        cublasLtMatmulDescCreate(&product, compute, scale);
        cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a);
        cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b);
        cublasLtMatrixLayout_t layouts[4];
        const Layout* const wanted[] = {&a, &b, &c, &d};
        for (int i = 0; i < 4; ++i)
            cublasLtMatrixLayoutCreate(&layouts[i], wanted[i]->type, wanted[i]->rows, wanted[i]->columns,
                                       wanted[i]->leading);
        const cublasStatus_t status = call(handle, product, layouts);
        for (cublasLtMatrixLayout_t layout : layouts) cublasLtMatrixLayoutDestroy(layout);
        cublasLtMatmulDescDestroy(product);
        cublasLtDestroy(handle);
        return status;
    }

    cublasStatus_t choose() {
        return with_descriptors([&](auto handle, auto product, auto& layouts) {
            cublasLtMatmulPreference_t preference = nullptr;
            cublasLtMatmulPreferenceCreate(&preference);
            const auto set = [&](int attribute, auto value) {
                cublasLtMatmulPreferenceSetAttribute(
                    preference, static_cast<cublasLtMatmulPreferenceAttributes_t>(attribute), &value,
                    sizeof value);
            };
            set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
            set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
            for (int matrix = 0; matrix < 4; ++matrix)
                set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + matrix, alignment);
            int num_found = 0;
            const cublasStatus_t status =
                cublasLtMatmulAlgoGetHeuristic(handle, product, layouts[0], layouts[1], layouts[2],
                                               layouts[3], preference, 1, &found, &num_found);
            EXPECT_EQ(num_found, status == CUBLAS_STATUS_SUCCESS ? 1 : 0);
            cublasLtMatmulPreferenceDestroy(preference);
            return status;
        });
    }
    cublasStatus_t multiply() {
        const float one = 1, zero = 0;
        const double wide_one = 1, wide_zero = 0;
        const bool f64 = scale == CUDA_R_64F;
        return with_descriptors([&](auto handle, auto product, auto& layouts) {
            return cublasLtMatmul(
                handle, product, f64 ? static_cast<const void*>(&wide_one) : &one, a_data, layouts[0], b_data,
                layouts[1], f64 ? static_cast<const void*>(&wide_zero) : &zero, d_data, layouts[2], d_data,
                layouts[3], &found.algo, workspace(), workspace_bytes, cuda::compute_stream());
        });
    }
};

struct Refusals : ::testing::Test {
    HostTensor a{DType::f64, {64, 64}}, b{DType::f64, {64, 64}}, c{DType::f64, {64, 64}};
    Product product(cudaDataType in = CUDA_R_32F, cudaDataType out = CUDA_R_32F) {
        return {in, out, a, b, c, 24, 40, 16};
    }
};

TEST_F(Refusals, OfSizesThatDoNotFit) {
    EXPECT_EQ(product().choose(), CUBLAS_STATUS_SUCCESS);
    const auto refused = [&](auto change) {
        Product p = product();
        change(p);
        EXPECT_EQ(p.choose(), CUBLAS_STATUS_INVALID_VALUE);
    };
    refused([](Product& p) { p.b.rows = 17, p.b.leading = 17; });
    refused([](Product& p) { p.c.rows = 23; });
    refused([](Product& p) { p.d.columns = 41; });
    refused([](Product& p) { p.op_a = CUBLAS_OP_T; });
    refused([](Product& p) { p.op_b = CUBLAS_OP_T; });
    refused([](Product& p) { p.a.columns = 0, p.b.rows = 0; });
}

TEST_F(Refusals, OfALeadingDimensionBelowTheRows) {
    for (Layout Product::*layout : {&Product::a, &Product::b, &Product::c, &Product::d}) {
        Product p = product();
        (p.*layout).leading = static_cast<std::int64_t>((p.*layout).rows) - 1;
        EXPECT_EQ(p.choose(), CUBLAS_STATUS_INVALID_VALUE);
        p = product();
        ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
        (p.*layout).leading = static_cast<std::int64_t>((p.*layout).rows) - 1;
        EXPECT_EQ(p.multiply(), CUBLAS_STATUS_INVALID_VALUE);
    }
}

TEST_F(Refusals, OfTypesThatNoKernelMultiplies) {
    const auto status = [&](cublasComputeType_t compute, cudaDataType scale, cudaDataType in,
                            cudaDataType out) {
        Product p = product(in, out);
        p.compute = compute, p.scale = scale;
        return p.choose();
    };
    const auto in_f32 = [&](cudaDataType in, cudaDataType out) {
        return status(CUBLAS_COMPUTE_32F, CUDA_R_32F, in, out);
    };
    EXPECT_EQ(in_f32(CUDA_R_16BF, CUDA_R_16BF), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(in_f32(CUDA_R_16BF, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(in_f32(CUDA_R_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(status(CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F), CUBLAS_STATUS_SUCCESS);

    EXPECT_EQ(in_f32(CUDA_R_32F, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(in_f32(CUDA_R_64F, CUDA_R_64F), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(in_f32(CUDA_R_16BF, CUDA_R_64F), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(status(CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_16BF, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(status(CUBLAS_COMPUTE_64F, CUDA_R_32F, CUDA_R_64F, CUDA_R_64F), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(status(CUBLAS_COMPUTE_32F, CUDA_R_64F, CUDA_R_32F, CUDA_R_32F), CUBLAS_STATUS_NOT_SUPPORTED);
    Product mixed = product(CUDA_R_16BF);
    mixed.b.type = CUDA_R_32F;
    EXPECT_EQ(mixed.choose(), CUBLAS_STATUS_NOT_SUPPORTED);
}

TEST_F(Refusals, OfAddressesThatTheAlgorithmCannotRead) {
    Product p = product();
    ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
    p.b_data = static_cast<const std::byte*>(p.b_data) + 16;
    EXPECT_EQ(p.multiply(), CUBLAS_STATUS_NOT_SUPPORTED);
    p.alignment = 16;
    ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(p.multiply(), CUBLAS_STATUS_SUCCESS);
}

TEST_F(Refusals, OfAnAlgorithmForAnotherProduct) {
    Product p = product(), other(CUDA_R_32F, CUDA_R_32F, a, b, c, 24, 40, 8);
    ASSERT_EQ(other.choose(), CUBLAS_STATUS_SUCCESS);
    p.found = other.found;
    EXPECT_EQ(p.multiply(), CUBLAS_STATUS_INVALID_VALUE);
}

TEST_F(Refusals, OfAResultInPlaceWithOtherRows) {
    Product p = product();
    ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
    p.d.leading += 8;
    EXPECT_EQ(p.multiply(), CUBLAS_STATUS_INVALID_VALUE);
}

struct Mistakes : Refusals {
    void ends_with(Product p, const char* sentence) {
        const auto run = [&] {
            ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
            ASSERT_EQ(p.multiply(), CUBLAS_STATUS_SUCCESS);
            cudaStreamSynchronize(cuda::compute_stream());
        };
        EXPECT_EXIT(run(), ::testing::ExitedWithCode(3), sentence);
    }
};

TEST_F(Mistakes, ALeadingDimensionTooLargeEndsTheProcess) {
    Product p = product();
    p.b.leading = 64 * 64;
    ends_with(p, "cublasLtMatmul: b \\(16 x 40, leading dimension 4096\\) does not lie in device memory");
    p = product();
    p.c.leading = p.d.leading = 1 << 20;
    ends_with(p, "cublasLtMatmul: d .* does not lie in device memory");
}

TEST_F(Mistakes, HostMemoryEndsTheProcess) {
    alignas(256) static float on_the_host[24 * 16];
    Product p = product();
    p.a_data = on_the_host;
    ends_with(p, "cublasLtMatmul: a .* does not lie in device memory");
}

/// A row of ones times a column of four parts that sum to 257, -256, 0 and 0; bf16 has no 257, and rounds it
/// to 256.
struct LongSum : ::testing::Test {
    static constexpr std::int64_t part = 257, k = 4 * part;
    HostTensor a{DType::bf16, {1, k}, Values(k, 1)}, b{DType::bf16, {k, 1}}, c{DType::bf16, {1, 1}};
    LongSum() {
        for (std::int64_t i = 0; i < 2 * part - 1; ++i) b.set(i, i < part ? 1 : -1);
    }
    Product product() { return {CUDA_R_16BF, CUDA_R_16BF, a, b, c, 1, 1, k}; }
};

TEST_F(LongSum, IsCutWhereAWorkspaceAllowsIt) {
    Product p = product();
    ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(p.found.workspaceSize, 0U);
    p.workspace_bytes = 1 << 16;
    ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(p.found.workspaceSize, 4 * sizeof(float));
    p.workspace_bytes = 4 * sizeof(float) - 1;
    EXPECT_EQ(p.multiply(), CUBLAS_STATUS_INVALID_VALUE);
}

TEST_F(LongSum, IsRoundedTwiceUnlessThatIsForbidden) {
    Product p = product();
    p.workspace_bytes = 1 << 16;
    for (const auto& [schemes, sum] : {std::pair{CUBLASLT_REDUCTION_SCHEME_MASK, 0.0},
                                       std::pair{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 1.0}}) {
        p.schemes = schemes;
        ASSERT_EQ(p.choose(), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(p.multiply(), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(c.at(0), sum);
        p.d_data = Tensor(c).raw();
    }
}

}  // namespace
}  // namespace switchyard::test

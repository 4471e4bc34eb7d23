// cuDNN's attention, emulated: the graphs compute what our kernels compute, at any shape and in parts of a
// batch; what is not as it should be is found at the start and named. The emulated library misbehaves as
// CUDA_EMULATION_CUDNN says.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "kernels/attention.hpp"
#include "kernels/attention_choice.hpp"
#include "reference/attention.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using kernels::AttentionShape;
using kernels::FusedAttention;
using test::HostTensor;

AttentionShape shape_of(std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t kv_heads,
                        std::int64_t size) {
    return {.q = {batch, tokens, heads, size}, .k = {batch, tokens, kv_heads, size}, .compute = DType::bf16};
}

struct Attention {
    AttentionShape shape;
    HostTensor q, k, v, d_o, o, lse, d_q, d_k, d_v, scratch;

    explicit Attention(const AttentionShape& s)
        : shape(s),
          q(HostTensor::normal(DType::bf16, s.q, "q")),
          k(HostTensor::normal(DType::bf16, s.k, "k")),
          v(HostTensor::normal(DType::bf16, s.k, "v")),
          d_o(HostTensor::normal(DType::bf16, s.q, "d_o")),
          o(DType::bf16, s.q),
          lse(DType::f32, {s.q[0], s.q[2], s.q[1]}),
          d_q(DType::bf16, s.q),
          d_k(DType::bf16, s.k),
          d_v(DType::bf16, s.k),
          scratch(DType::u8,
                  {static_cast<std::int64_t>(kernels::attention_scratch_bytes(s.q, s.k, DType::bf16))}) {}
    void forward(const HostTensor& first_key = {}) {
        kernels::attention_forward(q, k, v, first_key, o, lse, scratch);
    }
    void run() {
        forward();
        kernels::attention_backward({.d_o = d_o,
                                     .q = q,
                                     .k = k,
                                     .v = v,
                                     .o = o,
                                     .lse = lse,
                                     .first_key = {},
                                     .d_q = d_q,
                                     .d_k = d_k,
                                     .d_v = d_v,
                                     .scratch = scratch});
    }
};

struct Cudnn : ::testing::Test {
    ~Cudnn() override {
        kernels::use_own_attention();
        unsetenv("CUDA_EMULATION_CUDNN");
    }
    static void misbehave(const std::string& word) { setenv("CUDA_EMULATION_CUDNN", word.c_str(), 1); }
    static void expect_problem(const FusedAttention& found, const std::string& text) {
        EXPECT_NE(found.problem.find(text), std::string::npos) << found.problem;
    }
};

TEST_F(Cudnn, AgreesWithOurKernels) {
    for (const AttentionShape& shape : {shape_of(1, 1, 1, 1, 8), shape_of(2, 65, 4, 2, 24),
                                        shape_of(1, 96, 3, 1, 64), shape_of(1, 33, 2, 2, 128)}) {
        const FusedAttention found = kernels::try_fused_attention(shape);
        EXPECT_EQ(found.problem, "") << shape.q.text();
        EXPECT_EQ(found.library, "cuDNN 9.19.0");
        ASSERT_TRUE(found.difference.has_value());
        EXPECT_LT(*found.difference, 0.5) << shape.q.text() << ": a quarter of it is rounding";
    }
}

TEST_F(Cudnn, ServesTheShapeThatWasChosenAndNoOther) {
    const AttentionShape shape = shape_of(2, 17, 2, 1, 16);
    ASSERT_EQ(kernels::try_fused_attention(shape).problem, "");
    const auto spoiled = [](Attention& x, const HostTensor& first_key = {}) {
        x.forward(first_key);
        const double honest = x.o.at(0);
        misbehave("wrong_o");
        x.forward(first_key);
        const double now = x.o.at(0);  // now the stream runs
        unsetenv("CUDA_EMULATION_CUDNN");
        return now != honest;
    };
    Attention before(shape);
    EXPECT_FALSE(spoiled(before));
    kernels::use_fused_attention(shape);
    Attention same(shape), longer(shape_of(2, 18, 2, 1, 16)), more_heads(shape_of(2, 17, 2, 2, 16));
    EXPECT_TRUE(spoiled(same));
    EXPECT_FALSE(spoiled(longer));
    EXPECT_FALSE(spoiled(more_heads));
    EXPECT_FALSE(spoiled(same, HostTensor::integers({17}, std::vector<std::int32_t>(17, 0)))) << "documents";
    kernels::use_own_attention();
    EXPECT_FALSE(spoiled(same));
}

TEST_F(Cudnn, TakesALongBatchInParts) {
    // 32,766 tokens, of which one call gets 16,384 at most; the second part of lse begins in the middle of 16
    // bytes.
    const AttentionShape shape = shape_of(2 * 5461, 3, 1, 1, 8);
    kernels::use_fused_attention(shape);
    Attention x(shape);
    count_calls(true);
    x.run();
    const std::int64_t launches = calls_since_phase()[Call::launch];
    count_calls(false);
    EXPECT_EQ(launches, 2 * 2) << "two passes of two parts";
    const test::Values q = x.q.values(), k = x.k.values(), v = x.v.values();
    const reference::Attention expected =
        reference::AttentionFormula({2 * 5461, 3, 1, 1, 8}, q, k, v, {}).run(x.d_o.values());
    EXPECT_TRUE(close(x.o, expected.o, 2));
    EXPECT_TRUE(close(x.d_q, expected.d_q, 4));
    EXPECT_TRUE(close(x.d_k, expected.d_k, 4));
    EXPECT_TRUE(close(x.d_v, expected.d_v, 4));
}

TEST_F(Cudnn, WhatItDoesNotComputeIsNamed) {
    AttentionShape shape = shape_of(1, 9, 1, 1, 8);
    shape.first_keys = true;
    expect_problem(kernels::try_fused_attention(shape), "does not keep documents apart");
    shape.first_keys = false, shape.compute = DType::f32;
    expect_problem(kernels::try_fused_attention(shape), "is for bf16, and run.dtype is f32");
    expect_problem(kernels::try_fused_attention(shape_of(1, 9, 1, 1, 20)),
                   "is for head sizes that 8 divides, and this one is 20");
}

TEST_F(Cudnn, WhatItRefusesIsNamed) {
    std::int64_t tokens = 40;  // another shape each time: what was found for one is kept
    for (const auto& [word, text] :
         {std::pair{"no_kernel", "it has no kernel for attentions of this shape"},
          {"no_plan", "it has no kernel for attentions of this shape"},
          {"no_order", "do not give the same bits every time"},
          {"large_workspace", "needs 2.00 GiB beside its arguments, and 1.00 GiB are allowed"}}) {
        misbehave(word);
        const FusedAttention found = kernels::try_fused_attention(shape_of(1, ++tokens, 1, 1, 8));
        expect_problem(found, text);
        EXPECT_FALSE(found.difference.has_value()) << word;
    }
}

TEST_F(Cudnn, WrongResultsAreFound) {
    const AttentionShape shape = shape_of(1, 21, 2, 1, 8);
    ASSERT_EQ(kernels::try_fused_attention(shape).problem, "");
    for (const char* result : {"o", "lse", "d_q", "d_k", "d_v"}) {
        misbehave(std::string("wrong_") + result);
        expect_problem(kernels::try_fused_attention(shape),
                       fmt::format("its {} differs from that of our kernel", result));
        misbehave(std::string("unsteady_") + result);
        expect_problem(kernels::try_fused_attention(shape),
                       fmt::format("its {} does not have the same bits every time", result));
    }
    misbehave("wrong_delta");
    expect_problem(kernels::try_fused_attention(shape), "its d_q differs from that of our kernel");
    unsetenv("CUDA_EMULATION_CUDNN");
    EXPECT_EQ(kernels::try_fused_attention(shape).problem, "");
}

TEST_F(Cudnn, AFailureInAStepSaysHowToGoOn) {
    const AttentionShape shape = shape_of(1, 23, 1, 1, 8);
    ASSERT_EQ(kernels::try_fused_attention(shape).problem, "");
    kernels::use_fused_attention(shape);
    Attention attention(shape);
    misbehave("no_execution");
    try {
        attention.forward();
        FAIL() << "the library computed nothing";
    } catch (const UserError& error) {
        EXPECT_NE(std::string(error.what()).find("CUDNN_STATUS_EXECUTION_FAILED"), std::string::npos)
            << error.what();
        EXPECT_NE(std::string(error.what()).find("kernels.attention = own"), std::string::npos)
            << error.what();
    }
}

/// In a process of its own for each case: a library is loaded once.
TEST_F(Cudnn, ALibraryThatCannotBeUsedIsNamed) {
    const char* const expected = std::getenv("SWITCHYARD_TEST_PROBLEM");
    if (!expected) GTEST_SKIP() << "SWITCHYARD_TEST_PROBLEM does not say what is wrong with the library here";
    setenv("CUDA_EMULATION_CUDNN", std::getenv("SWITCHYARD_TEST_WORD"), 1);
    const FusedAttention found = kernels::try_fused_attention(shape_of(1, 8, 1, 1, 8));
    expect_problem(found, expected);
    EXPECT_FALSE(found.difference.has_value());
}

}  // namespace
}  // namespace switchyard

// RANKS: 1 2
// Whose attention a run computes with: what kernels.attention asks for, and that one rank's problem is all
// ranks'.
#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "support/temporary_directory.hpp"
#include "train/attention_choice.hpp"

namespace switchyard {
namespace {

struct AttentionChoice : ::testing::Test {
    Comm world = Comm::duplicate(MPI_COMM_WORLD);
    Topology topology = Topology::create(world, 1);
    Config config;

    AttentionChoice() {
        config.model.hidden_size = 32, config.model.num_heads = 4, config.model.num_kv_heads = 2;
        config.data.seq_len = 19, config.data.micro_batch = 2;
    }
    ~AttentionChoice() override {
        kernels::use_own_attention();
        unsetenv("CUDA_EMULATION_CUDNN");
    }
    std::string choose(const std::string& wanted) {
        config.kernels.attention = wanted;
        return choose_attention(topology, config);
    }
    /// The message of an error that all ranks have.
    std::string refusal(const std::string& wanted) {
        return test::message_of<AgreedError>([&] { choose(wanted); });
    }
    /// True if this build has a library here and the kernels agree, on all ranks.
    bool is_there() { return try_fused_attention(world, attention_shape(config, 1)).problem.empty(); }
};

TEST_F(AttentionChoice, OwnIsOurs) {
    EXPECT_EQ(choose("own"), "own kernel, by kernels.attention");
}

TEST_F(AttentionChoice, ShapeIsThatOfOneRank) {
    config.data.mask_documents = true;
    const kernels::AttentionShape shape = attention_shape(config, 2);
    EXPECT_EQ(shape.q.text(), Shape({2, 19, 2, 8}).text());
    EXPECT_EQ(shape.k.text(), Shape({2, 19, 1, 8}).text());
    EXPECT_EQ(shape.compute, DType::bf16);
    EXPECT_TRUE(shape.first_keys);
}

TEST_F(AttentionChoice, AutoTakesTheLibraryWhereItAgrees) {
    const std::string text = choose("auto");
    if (is_there()) {
        EXPECT_EQ(text, "cuDNN 9.19.0, which agrees with our kernel");
        EXPECT_EQ(choose("cudnn"), text);
    } else {
        EXPECT_EQ(text.find("own kernel, not cuDNN's: "), 0U) << text;
    }
}

TEST_F(AttentionChoice, WhatTheLibraryCannotDoIsOurs) {
    config.run.dtype = "f32";
    EXPECT_EQ(choose("auto").find("own kernel, not cuDNN's: "), 0U);
    const std::string message = refusal("cudnn");
    EXPECT_EQ(message.find("kernels.attention = cudnn asks for a kernel that cannot be used here: "), 0U)
        << message;
    EXPECT_NE(message.find("; use auto"), message.npos) << message;
    EXPECT_NE(message.find(is_there() ? "is for bf16" : ""), message.npos) << message;
}

TEST_F(AttentionChoice, OneRanksProblemIsAllRanksProblem) {
    if (!is_there()) GTEST_SKIP() << "there is no emulated library here to misbehave on one rank";
    const std::string last = std::to_string(world.size() - 1);
    const std::string prefix = world.size() == 1 ? "" : "on rank " + last + ", ";
    setenv("CUDA_EMULATION_CUDNN", ("wrong_d_v:" + last).c_str(), 1);
    EXPECT_EQ(choose("auto").find("own kernel, not cuDNN's: " + prefix +
                                  "its d_v differs from that of our kernel by "),
              0U)
        << choose("auto");
    EXPECT_NE(refusal("cudnn").find("its d_v differs"), std::string::npos);
    config.data.seq_len = 21;
    setenv("CUDA_EMULATION_CUDNN", ("no_kernel:" + last).c_str(), 1);
    EXPECT_EQ(choose("auto"), "own kernel, not cuDNN's: " + prefix +
                                  "it has no kernel for attentions of this shape on this GPU");
}

}  // namespace
}  // namespace switchyard

// What lanes of a warp do together, against CUDA's and PTX's documents. Kernels are lambdas, run at once.
#include <gtest/gtest.h>

#include <vector>

#include "cuda/device.cuh"
#include "device_memory.hpp"

namespace {

using namespace switchyard;
using namespace switchyard::cuda;

unsigned thread() {
    return threadIdx.x;
}

TEST(EmulatedWarp, ShufflesGiveTheValueOfTheOtherLane) {
    std::vector<int> exclusive(64), broadcast(64), wrapped(64);
    std::vector<double> wide(64);
    emulation::run_kernel(1, 64, 0, [&] {
        const int mine = 100 + static_cast<int>(thread());
        exclusive[thread()] = __shfl_xor_sync(all_lanes, mine, 5);
        broadcast[thread()] = __shfl_sync(all_lanes, mine, 7);
        wrapped[thread()] = __shfl_sync(all_lanes, mine, 32 + 3);
        wide[thread()] = __shfl_xor_sync(all_lanes, 0.5 * mine, 1);
    });
    for (unsigned i = 0; i < 64; ++i) {
        const unsigned warp = i / 32 * 32, lane = i % 32;
        EXPECT_EQ(exclusive[i], static_cast<int>(100 + warp + (lane ^ 5u)));
        EXPECT_EQ(broadcast[i], static_cast<int>(100 + warp + 7));
        EXPECT_EQ(wrapped[i], static_cast<int>(100 + warp + 3));
        EXPECT_EQ(wide[i], 0.5 * (100 + warp + (lane ^ 1u)));
    }
}

struct Uneven {
    static unsigned combine(unsigned a, unsigned b) {
        return 3 * a + b;
    }
};

TEST(EmulatedWarp, CombinedLanesAreWhatShufflesMakeOfThem) {
    for (const int lanes : {1, 2, 8, 32}) {
        std::vector<unsigned> together(64), shuffled(64);
        emulation::run_kernel(1, 64, 0, [&] {
            unsigned x = thread() * thread();
            together[thread()] = combine_lanes<Uneven>(x, lanes);
            for (int distance = lanes / 2; distance > 0; distance /= 2)
                x = Uneven::combine(x, __shfl_xor_sync(all_lanes, x, distance));
            shuffled[thread()] = x;
        });
        EXPECT_EQ(together, shuffled) << lanes;
    }
}

TEST(EmulatedWarp, BallotHasTheLanesThatSayYes) {
    std::vector<unsigned> all(32), some(32);
    emulation::run_kernel(1, 32, 0, [&] {
        all[thread()] = __ballot_sync(all_lanes, thread() % 3 == 0);
        const unsigned mask = thread() < 8 ? 0x000000FFu : 0xFFFFFF00u;
        some[thread()] = __ballot_sync(mask, thread() % 3 == 0);
    });
    for (unsigned i = 0; i < 32; ++i) {
        EXPECT_EQ(all[i], 0x49249249u);
        EXPECT_EQ(some[i], 0x49249249u & (i < 8 ? 0xFFu : 0xFFFFFF00u));
    }
}

TEST(EmulatedWarp, GroupsOfLanesMeetWithoutTheOthers) {
    std::vector<unsigned> sums(32);
    emulation::run_kernel(1, 32, 0, [&] {
        const unsigned group = thread() / 8, mask = 0xFFu << 8 * group;
        unsigned sum = thread();
        for (unsigned round = 0; round <= group; ++round)  // of different lengths
            for (int bits = 1; bits < 8; bits *= 2) sum += __shfl_xor_sync(mask, sum, bits);
        sums[thread()] = sum;
    });
    for (unsigned i = 0; i < 32; ++i) {
        unsigned expected = 0, rounds = i / 8;
        for (unsigned lane = 0; lane < 8; ++lane) expected += i / 8 * 8 + lane;
        for (; rounds > 0; --rounds) expected *= 8;
        EXPECT_EQ(sums[i], expected);
    }
}

TEST(EmulatedWarp, LanesThatHaveExitedAreNotWaitedFor) {
    std::vector<unsigned> votes(32);
    emulation::run_kernel(1, 32, 0, [&] {
        if (thread() >= 20) return;
        for (int i = 0; i < 50; ++i) __syncwarp(0xFFFFFu);
        votes[thread()] = __ballot_sync(0xFFFFFu, true);
    });
    for (unsigned i = 0; i < 32; ++i) EXPECT_EQ(votes[i], i < 20 ? 0xFFFFFu : 0u);
}

TEST(EmulatedWarp, BarriersOrderAllThreadsOfABlock) {
    struct Shared {
        int x[2][96];
    };
    std::vector<int> wrong(3 * 96, -1);
    emulation::run_kernel(3, 96, sizeof(Shared), [&] {
        auto& shared = block_memory<Shared>();
        int bad = 0;
        for (int round = 0; round < 20; ++round) {
            shared.x[round % 2][thread()] = 1000 * round + static_cast<int>(thread());
            __syncthreads();
            for (int i = 0; i < 96; ++i) bad += shared.x[round % 2][i] != 1000 * round + i;
        }
        wrong[96 * blockIdx.x + thread()] = bad;
    });
    for (int bad : wrong) EXPECT_EQ(bad, 0);
}

/// 8 k + j for row k of a matrix of 8 columns: each element of four matrices has a value of its own.
std::uint16_t element(unsigned matrix, unsigned row, unsigned column) {
    return static_cast<std::uint16_t>(100 * matrix + 8 * row + column);
}

template <bool transposed>
void expect_matrices_in_place() {
    struct Shared {
        alignas(16) std::uint16_t x[4][8][8];
    };
    std::vector<std::uint32_t> out(4 * 32);
    emulation::run_kernel(1, 32, sizeof(Shared), [&] {
        auto& shared = block_memory<Shared>();
        for (unsigned i = thread(); i < 256; i += 32)
            shared.x[i / 64][i / 8 % 8][i % 8] = element(i / 64, i / 8 % 8, i % 8);
        __syncwarp();
        std::uint32_t d[4];
        load_matrices<transposed>(d, shared.x[thread() / 8][thread() % 8]);
        for (unsigned k = 0; k < 4; ++k) out[4 * thread() + k] = d[k];
    });
    for (unsigned lane = 0; lane < 32; ++lane)
        for (unsigned k = 0; k < 4; ++k) {
            const unsigned row = lane / 4, column = 2 * (lane % 4);
            const std::uint32_t low = transposed ? element(k, column, row) : element(k, row, column),
                                high = transposed ? element(k, column + 1, row) : element(k, row, column + 1);
            EXPECT_EQ(out[4 * lane + k], low | high << 16) << "lane " << lane << " matrix " << k;
        }
}

TEST(EmulatedWarp, LoadMatrices) {
    expect_matrices_in_place<false>();
}

TEST(EmulatedWarp, LoadMatricesTransposed) {
    expect_matrices_in_place<true>();
}

std::uint32_t pair_of(float low, float high) {
    return to_bf16(low).bits | static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
}

/// Elements differ along rows, columns and k, so that one in a wrong register changes a sum. Exact in bf16
/// and f32.
TEST(EmulatedWarp, MatrixProduct) {
    const auto a = [](unsigned row, unsigned k) {
        return static_cast<float>(row + 1) * (k % 2 ? 0.5f : 1.0f) + k;
    };
    const auto b = [](unsigned k, unsigned column) {
        return static_cast<float>(static_cast<int>(3 * k) - static_cast<int>(8 * column));
    };
    std::vector<float> out(16 * 8);
    emulation::run_kernel(1, 32, 0, [&] {
        const unsigned g = thread() / 4, t = thread() % 4;
        const std::uint32_t a_part[4] = {
            pair_of(a(g, 2 * t), a(g, 2 * t + 1)), pair_of(a(g + 8, 2 * t), a(g + 8, 2 * t + 1)),
            pair_of(a(g, 2 * t + 8), a(g, 2 * t + 9)), pair_of(a(g + 8, 2 * t + 8), a(g + 8, 2 * t + 9))};
        const std::uint32_t b_part[2] = {pair_of(b(2 * t, g), b(2 * t + 1, g)),
                                         pair_of(b(2 * t + 8, g), b(2 * t + 9, g))};
        float d[4] = {1, 2, 3, 4};
        mma(d, a_part, b_part);
        out[8 * g + 2 * t] = d[0] - 1, out[8 * g + 2 * t + 1] = d[1] - 2;
        out[8 * (g + 8) + 2 * t] = d[2] - 3, out[8 * (g + 8) + 2 * t + 1] = d[3] - 4;
    });
    for (unsigned row = 0; row < 16; ++row)
        for (unsigned column = 0; column < 8; ++column) {
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) sum += a(row, k) * b(k, column);
            EXPECT_EQ(out[8 * row + column], sum) << row << ", " << column;
        }
}

struct Slots {
    alignas(16) float x[3][32][4];
};

/// Three groups of copies, the last of zeros; what a thread sees after each wait.
TEST(EmulatedWarp, CopiesInTheBackgroundAreThereAfterTheWaitForTheirGroup) {
    auto* source = static_cast<float*>(emulation::allocate_device(32 * 16));
    {
        const emulation::OpenMemory open;
        for (int i = 0; i < 128; ++i) source[i] = static_cast<float>(i);
        std::vector<float> seen(5 * 32);
        emulation::run_kernel(1, 32, sizeof(Slots), [&] {
            auto& shared = block_memory<Slots>();
            const unsigned i = thread();
            for (auto& slot : shared.x) slot[i][1] = -1;
            for (int group = 0; group < 3; ++group) {
                copy_async(shared.x[group][i], source + 4 * i, group < 2);
                commit_copies();
            }
            seen[i] = shared.x[0][i][1];
            wait_copies<2>();
            seen[32 + i] = shared.x[0][i][1], seen[64 + i] = shared.x[1][i][1];
            wait_copies<0>();
            seen[96 + i] = shared.x[1][i][1], seen[128 + i] = shared.x[2][i][1];
        });
        for (unsigned i = 0; i < 32; ++i) {
            const auto value = static_cast<float>(4 * i + 1);
            EXPECT_TRUE(std::isnan(seen[i])) << "neither the old value nor the new one before the wait";
            EXPECT_EQ(seen[32 + i], value);
            EXPECT_TRUE(std::isnan(seen[64 + i])) << "of a group that may still be under way";
            EXPECT_EQ(seen[96 + i], value);
            EXPECT_EQ(seen[128 + i], 0);
        }
    }
    emulation::release_device(source);
}

std::vector<unsigned> order_of_threads() {
    std::vector<unsigned> order;
    emulation::run_kernel(2, 64, 0, [&] { order.push_back(thread()); });
    return order;
}

TEST(EmulatedWarp, TheOrderOfThreadsIsDrawn) {
    EXPECT_NE(order_of_threads(), order_of_threads());
}

}  // namespace

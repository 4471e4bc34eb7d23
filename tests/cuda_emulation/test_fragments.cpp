// The emulated mma, ldmatrix and cp.async do what the PTX ISA says of every element: indices here are written
// as its sections on mma.m16n8k16 and ldmatrix give them, i being the number of an element in a fragment.
#include <gtest/gtest.h>

#include <cmath>

#include "cuda/device.cuh"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

constexpr int lanes = cuda::warp_size;

struct Element {
    int row, column;
};
Element of_a(int lane, int i) {
    const bool upper = i < 2 || (i >= 4 && i < 6);
    return {lane / 4 + (upper ? 0 : 8), lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Element of_b(int lane, int i) {
    return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4};
}
Element of_c(int lane, int i) {
    return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + (i & 1)};
}

/// Small whole numbers, so that products are exact in any order; no two rows or columns alike.
double left(int row, int column) {
    return (row * 7 + column * 3) % 17 - 8 + (row == column ? 5 : 0);
}
double right(int row, int column) {
    return (row * 5 + column * 11) % 13 - 6 + (row == 2 * column ? 3 : 0);
}

void multiply_by_warp(const std::uint16_t* a, const std::uint16_t* b, float* d) {
    const int lane = static_cast<int>(threadIdx.x);
    std::uint32_t a_part[4] = {}, b_part[2] = {};
    for (int i = 0; i < 8; ++i) {
        const Element e = of_a(lane, i);
        a_part[i / 2] |= static_cast<std::uint32_t>(a[e.row * 16 + e.column]) << (i % 2 * 16);
    }
    for (int i = 0; i < 4; ++i) {
        const Element e = of_b(lane, i);
        b_part[i / 2] |= static_cast<std::uint32_t>(b[e.row * 8 + e.column]) << (i % 2 * 16);
    }
    float sums[4] = {1, 1, 1, 1};
    cuda::mma(sums, a_part, b_part);
    for (int i = 0; i < 4; ++i) {
        const Element e = of_c(lane, i);
        d[e.row * 8 + e.column] = sums[i];
    }
}

TEST(Fragments, MmaAddsTheProduct) {
    HostTensor a(DType::bf16, {16, 16}), b(DType::bf16, {16, 8}), d(DType::f32, {16, 8});
    for (int i = 0; i < 256; ++i) a.set(i, left(i / 16, i % 16));
    for (int i = 0; i < 128; ++i) b.set(i, right(i / 8, i % 8));
    cuda::launch({.blocks = 1, .threads = lanes}, multiply_by_warp,
                 static_cast<Tensor>(a).data<std::uint16_t>(), static_cast<Tensor>(b).data<std::uint16_t>(),
                 static_cast<Tensor>(d).data<float>());
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 8; ++column) {
            double sum = 1;
            for (int k = 0; k < 16; ++k) sum += left(row, k) * right(k, column);
            EXPECT_EQ(d.at(row * 8 + column), sum) << row << ", " << column;
        }
}

/// Four matrices whose rows lie apart from each other, in no order.
struct Rows {
    alignas(16) std::uint16_t x[lanes][24];
};
int place_of(int matrix, int row) {
    return (8 * matrix + row) * 11 % lanes;
}
std::uint16_t value_of(int matrix, int row, int column) {
    return static_cast<std::uint16_t>(matrix * 1000 + row * 10 + column);
}

template <bool transposed>
void load_four(std::uint32_t* out) {
    Rows& shared = cuda::block_memory<Rows>();
    const int lane = static_cast<int>(threadIdx.x);
    for (int column = 0; column < 8; ++column)
        shared.x[place_of(lane / 8, lane % 8)][8 + column] = value_of(lane / 8, lane % 8, column);
    __syncthreads();
    std::uint32_t d[4];
    cuda::load_matrices<transposed>(d, &shared.x[place_of(lane / 8, lane % 8)][8]);
    for (int k = 0; k < 4; ++k) out[lane * 4 + k] = d[k];
}

template <bool transposed>
void expect_four() {
    const HostTensor out(DType::i32, {lanes, 4});
    cuda::launch({.blocks = 1, .threads = lanes, .shared_bytes = sizeof(Rows)}, load_four<transposed>,
                 static_cast<Tensor>(out).data<std::uint32_t>());
    for (int lane = 0; lane < lanes; ++lane)
        for (int k = 0; k < 4; ++k) {
            const int row = lane / 4, column = lane % 4 * 2;
            const std::uint32_t low = transposed ? value_of(k, column, row) : value_of(k, row, column),
                                high =
                                    transposed ? value_of(k, column + 1, row) : value_of(k, row, column + 1);
            EXPECT_EQ(out.bits(lane * 4 + k), low | high << 16) << "lane " << lane << ", matrix " << k;
        }
}

TEST(Fragments, LdmatrixGivesEachLaneTwoElementsOfARow) {
    expect_four<false>();
}
TEST(Fragments, LdmatrixTransposes) {
    expect_four<true>();
}

struct Parts {
    cuda::Vector<float> x[lanes][3];
};

/// Three copies in three groups, the second one of zeros; out (4, threads): part 0 before any wait, and parts
/// 0, 1, 2 after a wait that leaves one group under way.
void copy_three(const float* from, float* out) {
    Parts& shared = cuda::block_memory<Parts>();
    const int thread = static_cast<int>(threadIdx.x);
    auto& mine = shared.x[thread];
    for (int part = 0; part < 3; ++part) {
        mine[part].x[0] = -1;
        cuda::copy_async(&mine[part], from + (thread * 3 + part) * 4, part != 1);
        cuda::commit_copies();
    }
    out[thread] = mine[0].x[0];
    cuda::wait_copies<1>();
    for (int part = 0; part < 3; ++part) out[(1 + part) * lanes + thread] = mine[part].x[0];
    cuda::wait_copies<0>();
    for (int part = 0; part < 3; ++part) out[(4 + part) * lanes + thread] = mine[part].x[3];
}

TEST(Fragments, CopiesArriveNoEarlierThanTheyMust) {
    HostTensor from(DType::f32, {lanes, 3, 4}), out(DType::f32, {7, lanes});
    for (int i = 0; i < lanes * 12; ++i) from.set(i, i + 1);
    cuda::launch({.blocks = 1, .threads = lanes, .shared_bytes = sizeof(Parts)}, copy_three,
                 static_cast<Tensor>(from).data<float>(), static_cast<Tensor>(out).data<float>());
    for (int thread = 0; thread < lanes; ++thread) {
        const auto value = [&](int row) { return out.at(row * lanes + thread); };
        const auto source = [&](int part, int i) { return from.at((thread * 3 + part) * 4 + i); };
        EXPECT_TRUE(std::isnan(value(0))) << "nothing was waited for";
        EXPECT_EQ(value(1), source(0, 0));
        EXPECT_EQ(value(2), 0) << "a copy that is not valid";
        EXPECT_TRUE(std::isnan(value(3))) << "its group is still under way";
        EXPECT_EQ(value(4), source(0, 3));
        EXPECT_EQ(value(5), 0);
        EXPECT_EQ(value(6), source(2, 3));
    }
}

}  // namespace
}  // namespace switchyard::test

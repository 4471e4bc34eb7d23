// The parts of comm that need no other rank: sums in rank order, the cuts of long messages, the counting
// rule, imaginary ranks.
// BACK ENDS: cpu. Sums in host memory.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "comm/ordered_sum.hpp"
#include "comm/topology.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

double value(int part, std::int64_t i) {
    const double scale[] = {1e6, -1e6, 1.0, 1e-3, 3e4};  // with cancellation any other order gives other bits
    return scale[part % 5] * (1 + uniform(stream_key(part, "part"), i));
}

TEST(OrderedSum, AddsInRankOrderInF32) {
    const int parts = 5;
    const std::int64_t count = 30011, stride = 30016;
    std::vector<float> values(parts * stride), sum(count);
    for (int p = 0; p < parts; ++p)
        for (std::int64_t i = 0; i < count; ++i) values[p * stride + i] = static_cast<float>(value(p, i));
    ordered_sum(DType::f32, sum.data(), values.data(), parts, stride, count);
    for (std::int64_t i = 0; i < count; ++i) {
        volatile float expected = values[i];
        for (int p = 1; p < parts; ++p) expected = expected + values[p * stride + i];
        ASSERT_EQ(sum[i], expected) << i;
    }
}

TEST(OrderedSum, AddsInF64AndInPlace) {
    const int parts = 3;
    const std::int64_t count = 5000;
    std::vector<double> values(parts * count);
    for (int p = 0; p < parts; ++p)
        for (std::int64_t i = 0; i < count; ++i) values[p * count + i] = value(p, i);
    const std::vector<double> before = values;
    ordered_sum(DType::f64, values.data(), values.data(), parts, count, count);
    for (std::int64_t i = 0; i < count; ++i)
        ASSERT_EQ(values[i], (before[i] + before[count + i]) + before[2 * count + i]) << i;
}

TEST(OrderedSum, AddsBf16InF32AndRoundsOnce) {
    // 256 + 1 + 1: bf16 has 8 bits, so 256 + 1 loses the 1 if every step is rounded.
    std::vector<bf16> values = {to_bf16(256), to_bf16(1), to_bf16(1)};
    bf16 sum;
    ordered_sum(DType::bf16, &sum, values.data(), 3, 1, 1);
    EXPECT_EQ(to_f32(sum), 258.0f);
}

TEST(OrderedSum, RefusesOtherTypes) {
    std::int32_t number = 1;
    EXPECT_THROW(ordered_sum(DType::i32, &number, &number, 1, 1, 1), InternalError);
}

TEST(SumSegments, CoverEveryElementOnceAndFitTheScratch) {
    for (int ranks : {1, 2, 3, 4, 7, 64})
        for (std::size_t element : {2, 4, 8})
            for (std::int64_t size : {1, 15, 16, 64, 1000, 4097, 100000})
                for (std::size_t limit : {std::size_t{1}, std::size_t{4096}, message_limit}) {
                    std::int64_t next = 0;
                    for (const SumSegment& segment : sum_segments(size, element, ranks, limit)) {
                        ASSERT_EQ(segment.begin, next);
                        ASSERT_EQ(segment.counts.size(), static_cast<std::size_t>(ranks));
                        std::int64_t length = 0;
                        for (int p = 0; p < ranks; ++p) {
                            // A chunk starts where the previous one ends, so only trailing chunks are short.
                            if (segment.counts[p]) {
                                ASSERT_EQ(length, p * segment.chunk);
                            }
                            ASSERT_LE(segment.counts[p], segment.chunk);
                            length += segment.counts[p];
                        }
                        const std::size_t end = (segment.begin + ranks * segment.chunk) * element;
                        ASSERT_LE(end, size * element + 64 * ranks);
                        ASSERT_LE(segment.chunk * ranks * element, std::max<std::size_t>(limit, 64 * ranks));
                        next += length;
                    }
                    ASSERT_EQ(next, size);
                }
}

TEST(Traffic, CountingRule) {
    EXPECT_EQ(all_gather_bytes(1200, 4), 900);
    EXPECT_EQ(all_reduce_bytes(1200, 4), 1800);
    EXPECT_EQ(all_reduce_bytes(1200, 1), 0);
    Traffic traffic;
    traffic.add(TrafficGroup::moves, 3);
    traffic.add(TrafficGroup::moves, 4);
    EXPECT_EQ(traffic.bytes[static_cast<int>(TrafficGroup::moves)], 7);
    EXPECT_STREQ(name_of(TrafficGroup::activations), "activations");
    EXPECT_STREQ(name_of(TrafficGroup::other), "other");
}

TEST(Pending, WaitsOnceWhetherAskedOrNot) {
    int waits = 0;
    {
        Pending asked([&] { ++waits; });
        asked.wait();
        asked.wait();
    }
    EXPECT_EQ(waits, 1);
    {
        Pending forgotten([&] { ++waits; });
    }
    EXPECT_EQ(waits, 2);
    {
        Pending first([&] { ++waits; });
        Pending moved(std::move(first));
        EXPECT_EQ(waits, 2);
        moved = Pending([&] { waits += 10; });  // the Pending that is replaced completes
        EXPECT_EQ(waits, 3);
    }
    EXPECT_EQ(waits, 13);
}

TEST(ImaginaryComm, HasRanksButNoCollectives) {
    const Comm comm = Comm::imaginary(2, 8);
    EXPECT_EQ(comm.rank(), 2);
    EXPECT_EQ(comm.size(), 8);
    EXPECT_THROW(comm.handle(), InternalError);
    EXPECT_THROW(all_reduce_sum(comm, 1.0), InternalError);
    EXPECT_THROW(Comm::imaginary(8, 8), InternalError);
    EXPECT_EQ(all_reduce_sum(Comm::imaginary(0, 1), 3.0), 3.0);
}

TEST(ImaginaryTopology, TpIsFastest) {
    for (int ranks : {1, 4, 6, 12})
        for (int tp = 1; tp <= ranks; ++tp) {
            if (ranks % tp) continue;
            for (int rank = 0; rank < ranks; ++rank) {
                const Topology t = Topology::imaginary(ranks, tp, rank);
                EXPECT_EQ(t.tp_size(), tp);
                EXPECT_EQ(t.dp_size(), ranks / tp);
                EXPECT_EQ(t.dp_rank() * t.tp_size() + t.tp_rank(), rank);
                EXPECT_EQ(t.world.rank(), rank);
                EXPECT_EQ(t.world.size(), ranks);
            }
        }
}

TEST(ImaginaryTopology, RefusesRanksThatDoNotFit) {
    try {
        Topology::imaginary(6, 4, 0);
        FAIL() << "6 ranks with tp 4 accepted";
    } catch (const UserError& error) {
        const std::string text = error.what();
        for (const char* word : {"6 ranks", "parallel.tp = 4", "start 4 or 8"})
            EXPECT_NE(text.find(word), std::string::npos) << text;
    }
    EXPECT_THROW(Topology::imaginary(2, 4, 0), UserError);
    EXPECT_THROW(Topology::imaginary(4, 0, 0), UserError);
}

TEST(SerialCollectives, DeliverWithoutMpi) {
    const Comm comm;
    Traffic traffic;
    const test::HostTensor values(DType::f32, {1, 3}, {1, 2, 3}), other(DType::f32, {1, 3});
    const Tensor here = values, there = other;
    start_all_reduce(comm, here, {}, traffic, TrafficGroup::loss).wait();
    EXPECT_EQ(values.values(), (test::Values{1, 2, 3}));
    start_exchange(comm, {{here}}, {{there}}, traffic, TrafficGroup::loss).wait();
    EXPECT_EQ(other.values(), (test::Values{0, 0, 0}));
    start_all_gather(comm, values, other, traffic, TrafficGroup::loss).wait();
    EXPECT_EQ(other.values(), values.values());
    EXPECT_EQ(broadcast(comm, std::string("text")), "text");
    EXPECT_THROW(agree(comm, false, "no"), UserError);
    EXPECT_EQ(traffic.bytes, Traffic{}.bytes);
}

TEST(SerialCollectives, LargestAndSmallestKeepNan) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(std::isnan(all_reduce_max(Comm(), nan)));
    EXPECT_TRUE(std::isnan(all_reduce_min(Comm(), nan)));
}

}  // namespace
}  // namespace switchyard

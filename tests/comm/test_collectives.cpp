// RANKS: 1 2 3 4
// Collectives on tensors against formulas in (rank, size), bit for bit; long messages by a small limit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using test::HostTensor;

constexpr TrafficGroup group = TrafficGroup::gradients;

/// Values whose sum depends on the order of the additions.
double value(int rank, std::int64_t i) {
    const double scale[] = {1e6, 3e3, -1e6, 1e-3};
    return scale[rank % 4] * (1 + uniform(stream_key(rank, "value"), i));
}

template <class T>
T cast(double x) {
    if constexpr (std::is_same_v<T, bf16>)
        return to_bf16(static_cast<float>(x));
    else
        return static_cast<T>(x);
}
template <class T>
auto widen(T x) {
    if constexpr (std::is_same_v<T, bf16>)
        return to_f32(x);
    else
        return x;
}

template <class T>
T* elements(HostTensor& x) {
    return reinterpret_cast<T*>(x.bytes());
}
template <class T>
const T* elements(const HostTensor& x) {
    return reinterpret_cast<const T*>(x.bytes());
}

template <class T>
T expected_sum(int ranks, std::int64_t i) {
    auto sum = widen(cast<T>(value(0, i)));
    for (int p = 1; p < ranks; ++p) sum += widen(cast<T>(value(p, i)));
    if constexpr (std::is_same_v<T, bf16>)
        return to_bf16(sum);
    else
        return sum;
}

struct Sum : ::testing::Test {
    Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    Traffic traffic;

    template <class T>
    void all_reduce(DType dtype, std::int64_t size, std::size_t limit = message_limit) {
        HostTensor values(dtype, {size}),
            scratch(DType::bf16, {size * static_cast<std::int64_t>(sizeof(T)) / 2 + 32 * comm.size()});
        for (std::int64_t i = 0; i < size; ++i) elements<T>(values)[i] = cast<T>(value(comm.rank(), i));
        if (limit == message_limit) {
            start_all_reduce(comm, values, scratch, traffic, group).wait();
        } else {  // in host memory
            const auto host = [](HostTensor& x) { return Tensor(x.bytes(), x.dtype(), x.shape()); };
            OrderedReduction reduction(comm, host(values), host(scratch), limit);
            reduction.scatter();
            reduction.finish();
        }
        for (std::int64_t i = 0; i < size; ++i) {
            const T expected = expected_sum<T>(comm.size(), i);
            const T got = elements<T>(std::as_const(values))[i];
            ASSERT_EQ(std::memcmp(&got, &expected, sizeof(T)), 0)
                << "element " << i << " of " << size << ": " << widen(got) << ", not " << widen(expected);
        }
    }
};

TEST_F(Sum, InRankOrderBitForBit) {
    for (std::int64_t size : {1, 2, 3, 31, 32, 33, 1000, 40007}) {
        all_reduce<float>(DType::f32, size);
        all_reduce<bf16>(DType::bf16, size);
        all_reduce<double>(DType::f64, size);
    }
}

TEST_F(Sum, InSegmentsWhenLong) {
    for (std::size_t limit : {1, 500, 4096}) {
        all_reduce<float>(DType::f32, 5003, limit);
        all_reduce<double>(DType::f64, 777, limit);
    }
}

/// 20 MB: more than a back end may hold on the way at once.
TEST_F(Sum, OfManyMegabytes) {
    all_reduce<float>(DType::f32, 5'000'003);
}

TEST_F(Sum, CountsTwiceThePayloadOfTheOthers) {
    Waits waits;
    traffic.waits = &waits;
    all_reduce<float>(DType::f32, 1201);
    const double expected = std::round(2.0 * (1201 * 4) * (comm.size() - 1) / comm.size());
    EXPECT_EQ(traffic.bytes[static_cast<int>(group)], expected);
    EXPECT_EQ(traffic.bytes[static_cast<int>(TrafficGroup::moves)], 0);
    EXPECT_EQ(waits.count(), comm.size() > 1 ? 1 : 0);
    EXPECT_EQ(waits.seconds(0, waits.count()) > 0, comm.size() > 1);
}

TEST_F(Sum, EmptyTensorIsNothing) {
    start_all_reduce(comm, Tensor(nullptr, DType::f32, {0, 4}), {}, traffic, group).wait();
    EXPECT_EQ(traffic.bytes, Traffic{}.bytes);
}

TEST_F(Sum, RefusesAScratchTooSmall) {
    if (comm.size() == 1) GTEST_SKIP() << "one rank needs no scratch";
    const HostTensor tensor(DType::f32, {64}), too_small(DType::f32, {64});
    EXPECT_THROW(start_all_reduce(comm, tensor, too_small, traffic, group), InternalError);
}

TEST_F(Sum, SeveralUnderWayAndOneForgotten) {
    const int under_way = 3;
    const std::int64_t size = 3001;
    std::vector<HostTensor> values(under_way), scratch(under_way);
    {
        std::vector<Pending> pending;
        for (int k = 0; k < under_way; ++k) {
            values[k] = HostTensor(DType::f32, {size},
                                   test::Values(static_cast<std::size_t>(size), (k + 1) * (comm.rank() + 1)));
            scratch[k] = HostTensor(DType::f32, {size + 16 * comm.size()});
            pending.push_back(start_all_reduce(comm, values[k], scratch[k], traffic, group));
        }
        pending[0].wait();
        pending[1].wait();
    }
    const int ranks = comm.size();
    for (int k = 0; k < under_way; ++k)
        for (double x : values[k].values()) ASSERT_EQ(x, (k + 1) * ranks * (ranks + 1) / 2);
}

struct Parts : ::testing::Test {
    Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    Traffic traffic;
    std::int64_t ranks = comm.size(), rank = comm.rank();

    /// Elements of (P, n) that are not expected(p, i). No ASSERT: a rank that left its test early would hang
    /// the others.
    std::int64_t num_wrong(const std::vector<std::int32_t>& values, std::int64_t n, auto expected) const {
        std::int64_t wrong = 0;
        for (std::int64_t p = 0; p < ranks; ++p)
            for (std::int64_t i = 0; i < n; ++i) wrong += values[p * n + i] != expected(p, i);
        return wrong;
    }

    static std::int32_t code(std::int64_t from, std::int64_t to, std::int64_t i) {
        return static_cast<std::int32_t>((from * 64 + to) * 100000 + i);
    }
};

TEST_F(Parts, ExchangeDeliversPairByPair) {
    const auto length = [](std::int64_t from, std::int64_t to) { return (from + 2 * to) % 3 * 400; };
    std::vector<HostTensor> out(ranks), in(ranks);
    std::vector<Tensor> send(ranks), received(ranks);
    double sent = 0;
    for (std::int64_t p = 0; p < ranks; ++p) {
        std::vector<std::int32_t> codes;
        for (std::int64_t i = 0; i < length(rank, p); ++i) codes.push_back(code(rank, p, i));
        out[p] = HostTensor::integers({length(rank, p)}, codes);
        in[p] = HostTensor::integers({length(p, rank)}, std::vector<std::int32_t>(length(p, rank), -1));
        send[p] = out[p];
        received[p] = in[p];
        if (p != rank) sent += static_cast<double>(send[p].bytes());
    }
    start_exchange(comm, send, received, traffic, group).wait();
    for (std::int64_t p = 0; p < ranks; ++p)
        for (std::int64_t i = 0; i < length(p, rank); ++i)
            ASSERT_EQ(in[p].at(i), p == rank ? -1 : code(p, rank, i))
                << "element " << i << " from rank " << p;
    EXPECT_EQ(traffic.bytes[static_cast<int>(group)], sent);
}

/// Up to 12 MB for a rank, another length for each pair, some with nothing in one direction.
TEST_F(Parts, ExchangeOfManyMegabytes) {
    const auto length = [](std::int64_t from, std::int64_t to) { return (2 * from + to) % 3 * 1'500'001; };
    const auto number = [](std::int64_t from, std::int64_t to, std::int64_t i) {
        return static_cast<std::int32_t>(i * 16 + from * 4 + to);
    };
    std::vector<HostTensor> out(ranks), in(ranks);
    std::vector<Tensor> send(ranks), received(ranks);
    for (std::int64_t p = 0; p < ranks; ++p) {
        out[p] = HostTensor(DType::i32, {length(rank, p)});
        in[p] = HostTensor(DType::i32, {length(p, rank)});
        for (std::int64_t i = 0; i < length(rank, p); ++i)
            elements<std::int32_t>(out[p])[i] = number(rank, p, i);
        send[p] = out[p];
        received[p] = in[p];
    }
    start_exchange(comm, send, received, traffic, group).wait();
    std::int64_t wrong = 0;
    for (std::int64_t p = 0; p < ranks; ++p)
        for (std::int64_t i = 0; p != rank && i < length(p, rank); ++i)
            wrong += elements<std::int32_t>(std::as_const(in[p]))[i] != number(p, rank, i);
    EXPECT_EQ(wrong, 0);
}

TEST_F(Parts, GatherOfManyMegabytes) {
    const std::int64_t n = 2'500'001;
    HostTensor mine(DType::i32, {n}), all(DType::i32, {ranks, n});
    for (std::int64_t i = 0; i < n; ++i)
        elements<std::int32_t>(mine)[i] = static_cast<std::int32_t>(4 * i + rank);
    start_all_gather(comm, mine, all, traffic, group).wait();
    std::int64_t wrong = 0;
    for (std::int64_t p = 0; p < ranks; ++p)
        for (std::int64_t i = 0; i < n; ++i)
            wrong +=
                elements<std::int32_t>(std::as_const(all))[p * n + i] != static_cast<std::int32_t>(4 * i + p);
    EXPECT_EQ(wrong, 0);
}

TEST_F(Parts, LongMessagesGoInPieces) {
    const std::int64_t n = 1000;
    std::vector<std::int32_t> send(n), received(n, -1);
    for (std::int64_t i = 0; i < n; ++i) send[i] = code(rank, 0, i);
    const auto next = static_cast<int>((rank + 1) % ranks),
               before = static_cast<int>((rank + ranks - 1) % ranks);
    Requests requests;
    start_receive(comm, received.data(), n * 4, before, 300, requests);
    start_send(comm, send.data(), n * 4, next, 300, requests);
    requests.wait();
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(received[i], code(before, 0, i));
}

TEST_F(Parts, AllGatherInPlaceAndFromElsewhere) {
    for (bool in_place : {true, false}) {
        for (std::size_t limit : {std::size_t{64}, std::size_t{1000}, message_limit}) {
            const std::int64_t n = 999;
            std::vector<std::int32_t> all(ranks * n, -1), elsewhere(n);
            std::int32_t* mine = in_place ? all.data() + rank * n : elsewhere.data();
            for (std::int64_t i = 0; i < n; ++i) mine[i] = code(rank, 0, i);
            if (limit == message_limit) {
                const HostTensor whole = HostTensor::integers({ranks, n}, all),
                                 part = HostTensor::integers({n}, elsewhere);
                const Tensor target = whole, source = in_place ? target.rows(rank, 1) : Tensor(part);
                start_all_gather(comm, source, target, traffic, group).wait();
                std::memcpy(all.data(), whole.bytes(), whole.num_bytes());
            } else {
                Requests requests;
                start_gather_parts(comm, mine, all.data(), n * 4, limit, requests);
                requests.wait();
            }
            EXPECT_EQ(num_wrong(all, n, [&](auto p, auto i) { return code(p, 0, i); }), 0);
        }
    }
    EXPECT_EQ(traffic.bytes[static_cast<int>(group)], 2 * 4.0 * 999 * (ranks - 1));
}

TEST_F(Parts, RefuseShapesThatDoNotFit) {
    const HostTensor a(DType::f32, {ranks, 8}), b(DType::f32, {ranks + 1, 8});
    const Tensor small = a, large = b;
    const std::vector<Tensor> parts(ranks, small), too_many(ranks + 1, small);
    EXPECT_THROW(start_exchange(comm, parts, too_many, traffic, group), InternalError);
    EXPECT_THROW(start_all_gather(comm, small.rows(0, 1), large, traffic, group), InternalError);
}

TEST(Scalars, FormulasInSize) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    const int ranks = comm.size(), rank = comm.rank();
    double expected = value(0, 0);
    for (int p = 1; p < ranks; ++p) expected += value(p, 0);
    EXPECT_EQ(all_reduce_sum(comm, value(rank, 0)), expected);
    EXPECT_EQ(all_reduce_max(comm, -rank - 1.0), -1.0);
    EXPECT_EQ(all_reduce_min(comm, -rank - 1.0), -ranks);
    const std::uint64_t half = std::uint64_t{1} << 63;
    EXPECT_EQ(all_reduce_sum_u64(comm, half + rank),
              (ranks % 2 ? half : 0) + static_cast<std::uint64_t>(ranks * (ranks - 1) / 2));
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(std::isnan(all_reduce_max(comm, rank == ranks - 1 ? nan : 5.0)));
    EXPECT_TRUE(std::isnan(all_reduce_min(comm, rank == 0 ? nan : 5.0)));
}

TEST(Scalars, BroadcastFromEveryRoot) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    for (int root = 0; root < comm.size(); ++root) {
        const std::string text(10 * root, static_cast<char>('a' + root));
        EXPECT_EQ(broadcast(comm, comm.rank() == root ? text : "something else", root), text);
        EXPECT_EQ(broadcast(comm, comm.rank() == root ? std::int64_t{1} << 40 : 0, root),
                  std::int64_t{1} << 40);
    }
    barrier(comm);
}

TEST(Broadcast, BringsNumbersOfRankZeroAndCountsThem) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    std::vector<std::int32_t> values(1001);
    if (comm.rank() == 0) std::iota(values.begin(), values.end(), -5);
    Traffic traffic;
    Waits waits;
    traffic.waits = &waits;
    broadcast(comm, values, traffic, TrafficGroup::batches);
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], static_cast<std::int32_t>(i) - 5);
    const double expected = std::round(4004.0 * (comm.size() - 1) / comm.size());
    EXPECT_EQ(traffic.bytes[static_cast<int>(TrafficGroup::batches)], expected);
    EXPECT_EQ(waits.count(), comm.size() > 1 ? 1 : 0);
}

TEST(Gather, TextsOfAllRanksArriveOnRankZeroInOrder) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    const auto text_of = [](int rank) {
        return std::string(3 * static_cast<std::size_t>(rank), 'a') + std::to_string(rank) + "\n";
    };
    std::vector<std::string> expected;
    for (int rank = 0; comm.rank() == 0 && rank < comm.size(); ++rank) expected.push_back(text_of(rank));
    EXPECT_EQ(gather(comm, text_of(comm.rank())), expected);
}

TEST(RequestsTest, AReceiveThatNobodyWaitsForIsCalledOff) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    if (comm.size() == 1) GTEST_SKIP() << "nobody to receive from";
    int forgotten = 0, first = 0, second = 0;
    if (comm.rank() == 0) {
        Requests abandoned;
        start_receive(comm, &forgotten, sizeof forgotten, 1, message_limit, abandoned);
    }
    barrier(comm);
    Requests requests;
    const int one = 1, two = 2;
    if (comm.rank() == 1) {
        start_send(comm, &one, sizeof one, 0, message_limit, requests);
        start_send(comm, &two, sizeof two, 0, message_limit, requests);
    }
    if (comm.rank() == 0) start_receive(comm, &first, sizeof first, 1, message_limit, requests);
    requests.wait();
    if (comm.rank() != 0) return;
    EXPECT_EQ(forgotten, 0);
    ASSERT_EQ(first, 1) << "the abandoned receive took the message";
    Requests last;
    start_receive(comm, &second, sizeof second, 1, message_limit, last);
    last.wait();
    EXPECT_EQ(second, 2);
}

}  // namespace
}  // namespace switchyard

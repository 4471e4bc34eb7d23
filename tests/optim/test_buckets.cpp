// RANKS: 1 2 3 4
// Buckets against sums computed element by element: owners in blocks (whole segments are sent in place), in
// turn, and at random; rows of several widths; gradients that are sent as bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "core/bf16.hpp"
#include "core/rng.hpp"
#include "optim/buckets.hpp"
#include "optim/ownership.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using test::HostTensor;

constexpr TrafficGroup group = TrafficGroup::gradients;
constexpr std::int64_t capacity = 96;  // elements of a segment

struct BucketsTest : ::testing::Test {
    Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    int ranks = comm.size(), rank = comm.rank();
    Traffic traffic;
    std::vector<std::int64_t> widths;
    std::vector<std::vector<int>> owners;
    std::vector<HostTensor> storage;
    std::vector<Tensor> tensors;
    HostTensor lists, send{DType::f32, {ranks * capacity}}, received = send.clone();

    void SetUp() override {
        const auto blocks = [&](std::int64_t rows) { return block_owners(comm, rows).owner; };
        const auto in_turn = [&](int rows) {
            std::vector<int> owner(rows);
            for (int i = 0; i < rows; ++i) owner[i] = i % ranks;
            return owner;
        };
        std::vector<int> random(29);
        for (int i = 0; i < 29; ++i)
            random[i] = static_cast<int>(uniform_below(stream_key(1, "owner"), i, ranks));
        add(16, in_turn(7));
        add(16, blocks(6 * ranks));       // one segment each
        add(16, blocks(15 * ranks - 1));  // 2.5 segments, the last rank has a row less
        add(16, random);
        add(5, blocks(3));
        add(1, blocks(40));
    }
    void add(std::int64_t width, std::vector<int> owner) {
        widths.push_back(width);
        owners.push_back(std::move(owner));
    }
    std::vector<BucketItem> items() const {
        std::vector<BucketItem> result;
        for (std::size_t i = 0; i < widths.size(); ++i) result.push_back({widths[i], &owners[i]});
        return result;
    }
    static float value(int rank, std::size_t item, std::int64_t element) {
        return static_cast<float>(normal(stream_key(rank, std::to_string(item)), element));
    }
    void fill() {
        storage.clear();
        tensors.clear();
        for (std::size_t i = 0; i < widths.size(); ++i) {
            const auto rows = static_cast<std::int64_t>(owners[i].size());
            storage.emplace_back(DType::f32, widths[i] == 1 ? Shape{rows} : Shape{rows, widths[i]});
            for (std::int64_t j = 0; j < storage[i].size(); ++j) storage[i].set(j, value(rank, i, j));
            tensors.push_back(storage[i]);
        }
    }
    /// Number of elements that are not expected(owner, item, element). No ASSERT: a rank must not leave
    /// early.
    std::int64_t num_wrong(auto expected) const {
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < widths.size(); ++i)
            for (std::int64_t j = 0; j < storage[i].size(); ++j)
                wrong +=
                    storage[i].at(j) != expected(owners[i][static_cast<std::size_t>(j / widths[i])], i, j);
        return wrong;
    }
    Buckets buckets() {
        const auto table = std::make_shared<BucketTable>(items(), ranks, capacity);
        const std::vector<std::int32_t> values(table->lists().begin(), table->lists().end());
        lists = HostTensor::integers({static_cast<std::int64_t>(values.size())}, values);
        return {table, lists};
    }
    Tensor as(const HostTensor& memory, DType dtype) const {
        return static_cast<Tensor>(memory).view(dtype, {ranks * capacity});
    }
};

TEST_F(BucketsTest, OwnersGetSumsInRankOrderAndOthersKeepTheirs) {
    const Buckets buckets = this->buckets();
    for (DType dtype : {DType::f32, DType::bf16}) {
        fill();
        buckets.reduce(comm, tensors, as(send, dtype), as(received, dtype), traffic, group);
        const auto travelled = [&](int p, std::size_t item, std::int64_t j) {
            const float x = value(p, item, j);
            return dtype == DType::bf16 && ranks > 1 ? to_f32(to_bf16(x)) : x;
        };
        EXPECT_EQ(num_wrong([&](int owner, std::size_t item, std::int64_t j) {
                      if (owner != rank) return value(rank, item, j);
                      float sum = travelled(0, item, j);
                      for (int p = 1; p < ranks; ++p) sum += travelled(p, item, j);
                      return sum;
                  }),
                  0)
            << name_of(dtype);
    }
}

TEST_F(BucketsTest, EverybodyGetsTheOwnersRows) {
    fill();
    buckets().gather(comm, tensors, as(send, DType::f32), traffic, group);
    EXPECT_EQ(num_wrong([&](int owner, std::size_t item, std::int64_t j) { return value(owner, item, j); }),
              0);
}

TEST_F(BucketsTest, SendAsManyBytesAsPlanned) {
    const Buckets buckets = this->buckets();
    const double planned = bucket_bytes(items(), ranks, capacity, 4);
    EXPECT_EQ(buckets.table()->bytes(4), planned);
    fill();
    buckets.reduce(comm, tensors, as(send, DType::f32), as(received, DType::f32), traffic, group);
    EXPECT_EQ(traffic.bytes[static_cast<int>(group)], planned);
    buckets.gather(comm, tensors, as(send, DType::f32), traffic, group);
    EXPECT_EQ(traffic.bytes[static_cast<int>(group)], 2 * planned);
}

/// Two matrices of two segments for each rank, in the order of the ranks: nobody waits for another's to begin.
TEST_F(BucketsTest, MatricesOfOneOwnerFillSegmentsSideBySide) {
    widths.assign(static_cast<std::size_t>(2 * ranks), 16);
    owners.clear();
    for (int i = 0; i < 2 * ranks; ++i) owners.push_back(std::vector<int>(12, i / 2));
    EXPECT_EQ(bucket_bytes(items(), ranks, capacity, 4),
              all_gather_bytes(static_cast<double>(4 * capacity * ranks * 4), ranks));
    fill();
    buckets().gather(comm, tensors, as(send, DType::f32), traffic, group);
    EXPECT_EQ(num_wrong([&](int owner, std::size_t item, std::int64_t j) { return value(owner, item, j); }),
              0);
}

TEST_F(BucketsTest, WholeSegmentsNeedNoCopy) {
    widths = {16};
    owners = {block_owners(comm, 12 * ranks).owner};  // two whole segments for each rank
    fill();
    send.set(test::Values(static_cast<std::size_t>(send.size()), -1));
    const Buckets buckets = this->buckets();
    buckets.reduce(comm, tensors, as(send, DType::f32), as(received, DType::f32), traffic, group);
    buckets.gather(comm, tensors, as(send, DType::f32), traffic, group);
    EXPECT_EQ(send.values(), test::Values(static_cast<std::size_t>(ranks * capacity), -1));
}

}  // namespace
}  // namespace switchyard

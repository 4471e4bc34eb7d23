// RANKS: 1 2 16
// What a save and a restart ask of a large machine: as many collectives for 1,000 datasets as for 10, every
// window written once, work shared by ranks that hold the same, and memory for a restart that does not grow
// with the number of ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/part.hpp"
#include "support/checkpoint_data.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

constexpr std::uint64_t window = least_window_bytes;

class Windows : public ::testing::Test {
  protected:
    Windows() : world(Comm::duplicate(MPI_COMM_WORLD)) { path = broadcast(world, folder.path()) + "/a.h5"; }
    ~Windows() override { barrier(world); }

    /// Rows in equal blocks, or all of them on every rank.
    Shard part_of(const std::string& name, Shape shape, bool replicas) const {
        if (!replicas) return test::cut(shape, test::Cut::rows, world.rank(), world.size());
        Shard all{name, shape, 0, 0, shape[0], shape[1], world.rank()};
        all.replicas = world.size();
        return all;
    }

    std::uint64_t largest(std::uint64_t mine) const {
        const auto all = gather_values(world, mine);
        return *std::max_element(all.begin(), all.end());
    }

    test::TemporaryDirectory folder;
    Comm world;
    std::string path;
};

TEST_F(Windows, CollectivesOfASaveDoNotGrowWithTheDatasets) {
    std::vector<std::uint64_t> collectives;
    for (const int count : {10, 1000}) {
        std::deque<test::HostTensor> values;
        CheckpointWriter writer(world, path, window);
        for (int i = 0; i < count; ++i) {
            const Shard shard = part_of("x", {40, 6}, i % 2 == 0);
            values.push_back(test::local_tensor(DType::f32, shard, 0, true));
            writer.attribute("/" + std::to_string(i % 7), "key", std::int64_t{i});
            writer.write(fmt::format("/{}/x{}", i % 7, i), shard, values.back());
        }
        const std::uint64_t before = host_collectives();
        writer.commit();
        collectives.push_back(host_collectives() - before);
        if (world.rank() == 0) {
            EXPECT_EQ(verify_file(path), std::vector<std::string>{});
        }
    }
    EXPECT_EQ(collectives[0], collectives[1]);
    EXPECT_LE(collectives[0], 14u);  // a save may take 20; the others are made outside of the writer
}

TEST_F(Windows, AreWrittenOnceAndByAllRanks) {
    for (const bool replicas : {false, true}) {
        std::deque<test::HostTensor> values;
        CheckpointWriter writer(world, path, window);
        std::uint64_t bytes = 0;
        for (const Shape& shape : {Shape{1000, 37}, Shape{96, 1031}, Shape{16, 3}, Shape{2000, 64}}) {
            const Shard shard = part_of("x", shape, replicas);
            values.push_back(test::local_tensor(DType::f32, shard, 0, true));
            writer.write("/x" + std::to_string(values.size()), shard, values.back());
            bytes += static_cast<std::uint64_t>(shape.size()) * sizeof(float);
        }
        writer.commit();
        const CheckpointWriter::Written mine = writer.written();
        std::uint64_t writes = 0, written = 0;
        for (const auto& one : gather_values(world, mine)) {
            writes += one.writes;
            written += one.bytes;
        }
        EXPECT_LE(writes, bytes / window + 2) << "a window was written twice";
        EXPECT_LT(written, bytes + 2 * window);
        EXPECT_LE(static_cast<double>(largest(mine.bytes)) * world.size(),
                  2.0 * static_cast<double>(written));
    }
}

/// Every rank wants all of 70 MiB: more than a round.
TEST_F(Windows, ARestartTakesNoMoreMemoryOnMoreRanks) {
    const Shape shape{4480, 4096};
    {
        const Shard shard = part_of("x", shape, true);
        CheckpointWriter writer(world, path);
        writer.write("/x", shard, DType::f32, [&](auto first, auto count, std::byte* packed) {
            auto* values = reinterpret_cast<float*>(packed);
            for (std::int64_t i = 0; i < count * shape[1]; ++i)
                values[i] = static_cast<float>((first * shape[1] + i) % 9973);
        });
        writer.write("/y", part_of("y", {16, 1}, true), DType::f32, [](auto, auto count, std::byte* packed) {
            std::fill_n(reinterpret_cast<float*>(packed), count, 0.5f);
        });
        writer.commit();
    }
    const CheckpointReader reader(world, path);
    std::int64_t rows = 0, wrong = 0;
    reader.want("/x", shape, DType::f32,
                {.part = {{{0, shape[0]}}, {{0, shape[1]}}},
                 .shared = true,
                 .sink = [&](auto first, auto count, const std::byte* packed) {
                     const auto* values = reinterpret_cast<const float*>(packed);
                     for (std::int64_t i = 0; i < count * shape[1]; ++i)
                         wrong += values[i] != static_cast<float>((first * shape[1] + i) % 9973);
                     rows += count;
                     return std::int64_t{0};
                 }});
    reader.fetch();
    EXPECT_EQ(rows, shape[0]);
    EXPECT_EQ(wrong, 0);
    EXPECT_LE(largest(reader.peak_bytes()), std::uint64_t{65} << 20);

    std::vector<std::pair<std::uint64_t, std::uint64_t>> told;  // once a round
    reader.want("/y", {16, 1}, DType::f32,
                {.part = {{{0, 16}}, {{0, 1}}}, .shared = true, .sink = [](auto, auto, const std::byte*) {
                     return std::int64_t{0};
                 }});
    reader.fetch([&](std::uint64_t done, std::uint64_t all) { told.emplace_back(done, all); });
    using Told = decltype(told);
    EXPECT_EQ(told, (Told{{64, 64}})) << "a short dataset after a long one takes one round";
}

}  // namespace
}  // namespace switchyard

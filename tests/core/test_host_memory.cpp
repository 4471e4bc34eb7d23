// available_bytes() on made-up systems: machines, containers and batch jobs, with both versions of control
// groups.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/host_memory.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard::backend {
namespace {

constexpr double kib = 1024;

class AvailableMemoryTest : public ::testing::Test {
  protected:
    void file(const std::string& name, const std::string& text) {
        const std::filesystem::path path = directory_.file(name);
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << text;
    }
    /// A group of version 2: its limit and the memory that its processes hold.
    void group(const std::string& path, const std::string& limit, long used) {
        file("sys/fs/cgroup" + path + "/memory.max", limit + "\n");
        file("sys/fs/cgroup" + path + "/memory.stat",
             "anon_thp 77\nanon " + std::to_string(used) + "\nfile 999999\n");
    }
    double available() const { return available_bytes(directory_.path()); }

    void SetUp() override {
        file("proc/meminfo",
             "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:   4000 kB\nSwapTotal: 700 kB\n"
             "SwapFree:        500 kB\n");
    }
    test::TemporaryDirectory directory_;
};

TEST_F(AvailableMemoryTest, IsThatOfTheMachineWithItsSwap) {
    EXPECT_EQ(available(), 4500 * kib);
    file("proc/self/cgroup", "0::/\n");
    EXPECT_EQ(available(), 4500 * kib) << "a group without limit";
    file("proc/meminfo", "MemAvailable: 4000 kB\n");
    EXPECT_EQ(available(), 4000 * kib) << "no swap";
}

TEST_F(AvailableMemoryTest, IsInfiniteWhereTheSystemDoesNotSay) {
    file("proc/meminfo", "MemTotal: 9000 kB\n");
    EXPECT_TRUE(std::isinf(available()));
}

TEST_F(AvailableMemoryTest, TheTightestGroupAboveCounts) {
    file("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
    group("/slurm/job_7/step_0", "max", 100);
    EXPECT_EQ(available(), 4500 * kib);
    group("/slurm/job_7", "300000", 120000);
    EXPECT_EQ(available(), 180000) << "what its processes hold is gone, caches are not";
    group("/slurm", "200000", 150000);
    EXPECT_EQ(available(), 50000);
    group("/slurm", "200000", 250000);
    EXPECT_EQ(available(), 0) << "never negative";
}

TEST_F(AvailableMemoryTest, AContainerSeesItsOwnGroupAsTheRoot) {
    file("proc/self/cgroup", "0::/\n");
    group("", "1000000", 400000);
    EXPECT_EQ(available(), 600000);
}

TEST_F(AvailableMemoryTest, VersionOneHasAHierarchyOfItsOwn) {
    file("proc/self/cgroup", "12:cpuset:/other\n7:memory:/job\n1:name=systemd:/job\n");
    file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "500000\n");
    file("sys/fs/cgroup/memory/job/memory.stat", "rss 5\ntotal_rss 200000\n");
    file("sys/fs/cgroup/cpuset/other/memory.limit_in_bytes", "1\n");
    EXPECT_EQ(available(), 300000);
}

TEST_F(AvailableMemoryTest, LinesThatAreNoneOfThisAreSkipped) {
    file("proc/self/cgroup", "nonsense\n0:\n\n0::/\n");
    group("", "1000000", 0);
    EXPECT_EQ(available(), 1000000);
}

}  // namespace
}  // namespace switchyard::backend

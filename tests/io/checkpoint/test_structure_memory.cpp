// The memory in which HDF5 makes the structure of a checkpoint is sparse, and no limit of file sizes concerns
// it.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "io/checkpoint/structure_memory.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

std::vector<std::byte> bytes_of(std::size_t count, int first) {
    std::vector<std::byte> bytes(count);
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(first + i);
    return bytes;
}

std::vector<std::byte> read(const StructureMemory& memory, std::uint64_t at, std::size_t count) {
    std::vector<std::byte> bytes(count, std::byte{0xAA});
    memory.read(at, bytes.data(), count);
    return bytes;
}

TEST(StructureMemory, HoldsWhatWasWrittenAndZerosElsewhere) {
    StructureMemory memory;
    const std::vector<std::byte> values = bytes_of(9000, 3);
    memory.write(4000, values.data(), values.size());
    EXPECT_EQ(memory.size(), 13000u);
    EXPECT_EQ(read(memory, 4000, 9000), values);
    EXPECT_EQ(read(memory, 0, 4000), std::vector<std::byte>(4000));
    EXPECT_EQ(read(memory, 1ull << 40, 10), std::vector<std::byte>(10));
    memory.write(5000, values.data(), 10);
    EXPECT_EQ(read(memory, 5000, 10), bytes_of(10, 3));
    EXPECT_EQ(memory.size(), 13000u);
    memory.clear();
    EXPECT_EQ(memory.size(), 0u);
    EXPECT_EQ(read(memory, 4000, 9000), std::vector<std::byte>(9000));
}

TEST(StructureMemory, KnowsItsPages) {
    StructureMemory memory;
    const std::byte one{1};
    for (const std::uint64_t at : {4096ull, 8192ull, 1ull << 40}) memory.write(at, &one, 1);
    const auto text = [&](ByteRange range) {
        std::string all;
        for (const ByteRange& part : memory.written(range))
            all += fmt::format("{}-{} ", part.begin, part.end);
        return all;
    };
    EXPECT_EQ(text({0, 4096}), "");
    EXPECT_EQ(text({0, 100000}), "4096-12288 ");
    EXPECT_EQ(text({5000, 9000}), "5000-9000 ");
    EXPECT_EQ(text({8192, 8192}), "");
    EXPECT_EQ(text({0, 2ull << 40}), fmt::format("4096-12288 {}-{} ", 1ull << 40, (1ull << 40) + 4096));
}

/// HDF5 would write beyond the limit, fail to close the file, and crash when it is shut down.
TEST(StructureMemory, IsNotConcernedByTheLimitOfFileSizes) {
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    ignore_file_size_signal();
    const rlimit none{0, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
    StructureMemory memory;
    {
        const hdf5::Handle access = hdf5::file_access();
        memory.use_for(access);
        const hdf5::Handle file(H5Fcreate("anything", H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose,
                                "H5Fcreate");
        const hsize_t extent = 1 << 20;
        const hdf5::Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose, "H5Screate_simple");
        const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
        SWITCHYARD_HDF5(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY));
        SWITCHYARD_HDF5(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER));
        const hdf5::Handle values(
            H5Dcreate2(file, "values", H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, creation, H5P_DEFAULT),
            H5Dclose, "H5Dcreate2");
    }
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_GT(memory.size(), 8u << 20);
    std::uint64_t kept = 0;
    for (const ByteRange& part : memory.written({0, memory.size()})) kept += part.size();
    EXPECT_LT(kept, 100000u) << "values take no room";
}

}  // namespace
}  // namespace switchyard

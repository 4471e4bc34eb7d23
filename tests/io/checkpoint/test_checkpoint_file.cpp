// RANKS: 1 2 3 4
// Checkpoint files of all ranks: it does not matter how a tensor is cut, an error on one rank is thrown on
// all, and a file gets its name only when it is complete.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <deque>
#include <optional>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5.hpp"
#include "support/checkpoint_data.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::all_cuts;
using test::Cut;
using test::cut;
using test::HostTensor;
using test::local_tensor;
using test::same_bits;
using test::TemporaryDirectory;
using test::whole_tensor;

/// Keeps this process from writing files of more than `bytes`.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit limit{bytes, before_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

  private:
    rlimit before_{};
};

/// All ranks use rank 0's folder.
class CheckpointFile : public ::testing::Test {
  protected:
    CheckpointFile() : world(Comm::duplicate(MPI_COMM_WORLD)) { shared = broadcast(world, folder.path()); }
    ~CheckpointFile() override { barrier(world); }
    std::string file(const std::string& name) const { return shared + "/" + name; }
    bool exists(const std::string& name) const { return ::access(file(name).c_str(), F_OK) == 0; }

    /// The message with which `work` fails, empty if it does not. Expects the same one on all ranks.
    template <class Work>
    std::string agreed_error(Work work) {
        const std::string message = test::message_of<UserError>(work);
        EXPECT_EQ(message, broadcast(world, message)) << "ranks disagree";
        return message;
    }
    /// Writes this rank's part of one tensor.
    void write(CheckpointWriter& writer, DType dtype, Shape shape, Cut how, std::int64_t padding = 0,
               const std::string& path = "/x") {
        const Shard shard = cut(shape, how, world.rank(), world.size());
        declared.push_back(local_tensor(dtype, shard, padding, true));
        writer.write(path, shard, declared.back());
    }
    /// Reads this rank's part of a tensor and compares its bits and padding.
    ::testing::AssertionResult reads_back(const CheckpointReader& reader, const std::string& path,
                                          DType dtype, Shape shape, Cut how, std::int64_t padding) {
        const Shard shard = cut(shape, how, world.rank(), world.size());
        const HostTensor read = local_tensor(dtype, shard, padding, false);
        reader.read(path, shard, read);
        if (same_bits(read, local_tensor(dtype, shard, padding, true))) return ::testing::AssertionSuccess();
        return ::testing::AssertionFailure() << path << " as " << name_of(dtype) << " " << shape.text()
                                             << ", cut " << static_cast<int>(how) << ", padding " << padding;
    }

    TemporaryDirectory folder;
    Comm world;
    std::string shared;
    std::deque<HostTensor> declared;  // lives until the writers have committed
};

struct Stored {
    std::uint64_t checksum = 0;
    HostTensor values;
};

/// A dataset as another program reads it with HDF5.
Stored read_with_hdf5(const std::string& path, const std::string& dataset, DType dtype, Shape shape) {
    using hdf5::Handle;
    const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "H5Fopen");
    const Handle object(H5Dopen2(file, dataset.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen2");
    const Handle attribute(H5Aopen(object, "checksum", H5P_DEFAULT), H5Aclose, "H5Aopen");
    Stored stored{0, HostTensor(dtype, shape)};
    SWITCHYARD_HDF5(H5Aread(attribute, H5T_NATIVE_UINT64, &stored.checksum));
    const hid_t type = dtype == DType::f64   ? H5T_NATIVE_DOUBLE
                       : dtype == DType::f32 ? H5T_NATIVE_FLOAT
                       : dtype == DType::i64 ? H5T_NATIVE_INT64
                       : dtype == DType::i32 ? H5T_NATIVE_INT32
                       : dtype == DType::u8  ? H5T_NATIVE_UINT8
                                             : H5T_NATIVE_INT16;
    SWITCHYARD_HDF5(H5Dread(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, stored.values.bytes()));
    return stored;
}

constexpr DType all_types[] = {DType::f32, DType::f64, DType::bf16, DType::i16,
                               DType::i32, DType::i64, DType::u8};
const Shape small_shapes[] = {{13, 7}, {1, 9}, {9, 1}, {2, 3}, {11}, {1}, {0}, {0, 5}, {5, 0}};

/// Columns of padding: none for rows, grids and replicas, two for the other cuts.
std::int64_t padding_with(Cut how) {
    return 2 * (static_cast<int>(how) % 2);
}

TEST_F(CheckpointFile, AnyCutIsReadAsAnyOther) {
    std::vector<std::pair<std::string, HostTensor>> expected;
    {
        CheckpointWriter writer(world, file("a.h5"));
        for (DType dtype : all_types)
            for (Shape shape : small_shapes)
                for (Cut how : all_cuts) {
                    const std::string path =
                        fmt::format("/{}/{} {}", name_of(dtype), shape.text(), static_cast<int>(how));
                    write(writer, dtype, shape, how, padding_with(how), path);
                    expected.emplace_back(path, whole_tensor(dtype, shape));
                }
        EXPECT_GT(writer.commit(), 0u);
    }
    const CheckpointReader reader(world, file("a.h5"));
    for (const auto& [path, whole] : expected) {
        ASSERT_TRUE(reader.has(path));
        EXPECT_EQ(reader.shape(path), whole.shape());
        for (Cut how : all_cuts)
            EXPECT_TRUE(reads_back(reader, path, whole.dtype(), whole.shape(), how, 2 - padding_with(how)));
    }
    if (world.rank() != 0) return;
    for (const auto& [path, whole] : expected) {
        const DType stored_type = whole.dtype() == DType::bf16 ? DType::f32 : whole.dtype();
        const Stored stored = read_with_hdf5(file("a.h5"), path, stored_type, whole.shape());
        EXPECT_EQ(stored.checksum, test::documented_checksum(whole)) << path;
        EXPECT_EQ(stored.values.values(), whole.values()) << path;
    }
    EXPECT_EQ(verify_file(file("a.h5")), std::vector<std::string>{});
}

TEST_F(CheckpointFile, ChecksumOfPartsAddsUp) {
    for (DType dtype : all_types)
        for (Cut how : all_cuts) {
            const Shard shard = cut({13, 7}, how, world.rank(), world.size());
            const std::uint64_t part =
                shard.replica == 0 ? checksum(shard, local_tensor(dtype, shard, 3, true)) : 0;
            EXPECT_EQ(all_reduce_sum_u64(world, part),
                      test::documented_checksum(whole_tensor(dtype, {13, 7})));
        }
}

/// Tensors that are longer than a block, a round of the exchange and a run of the checksum.
TEST_F(CheckpointFile, LongRunsOfRows) {
    const Shape rounds{1100 * world.size(), 4001};  // 17.6 MB a rank
    const std::vector<std::pair<Shape, Cut>> cases{
        {rounds, Cut::columns}, {{3, 1200007}, Cut::rows}, {{3, 1200007}, Cut::grid}, {{1500007}, Cut::rows}};
    {
        CheckpointWriter writer(world, file("a.h5"));
        for (std::size_t i = 0; i < cases.size(); ++i)
            write(writer, DType::f32, cases[i].first, cases[i].second, 0, "/" + std::to_string(i));
        writer.commit();
    }
    const CheckpointReader reader(world, file("a.h5"));
    for (std::size_t i = 0; i < cases.size(); ++i) {
        const std::string path = "/" + std::to_string(i);
        EXPECT_TRUE(reads_back(reader, path, DType::f32, cases[i].first, Cut::columns, 1));
        EXPECT_TRUE(reads_back(reader, path, DType::f32, cases[i].first, Cut::rows, 0));
    }
    if (world.rank() == 0) {
        EXPECT_EQ(verify_file(file("a.h5")), std::vector<std::string>{});
    }
}

TEST_F(CheckpointFile, NumberFormatsOnlyWhereExact) {
    {
        CheckpointWriter writer(world, file("a.h5"));
        write(writer, DType::bf16, {6, 5}, Cut::rows, 0, "/bf16");
        write(writer, DType::f32, {6, 5}, Cut::rows, 0, "/f32");
        write(writer, DType::f64, {6, 5}, Cut::rows, 0, "/f64");
        write(writer, DType::i32, {6, 5}, Cut::rows, 0, "/i32");
        writer.commit();
    }
    const CheckpointReader reader(world, file("a.h5"));
    const Shard shard = cut({6, 5}, Cut::columns, world.rank(), world.size());
    const auto read_as = [&](const std::string& path, DType dtype) {
        const HostTensor values = local_tensor(dtype, shard, 0, false);
        const std::string error = agreed_error([&] { reader.read(path, shard, values); });
        return std::pair(error, values.values());
    };
    const auto expected = [&](DType dtype) { return local_tensor(dtype, shard, 0, true).values(); };
    for (DType dtype : {DType::bf16, DType::f32, DType::f64})
        EXPECT_EQ(read_as("/bf16", dtype), std::pair(std::string(), expected(DType::bf16)));
    EXPECT_EQ(read_as("/f32", DType::f64), std::pair(std::string(), expected(DType::f32)));
    EXPECT_CONTAINS(read_as("/f32", DType::bf16).first, "values of dataset /f32 are not exact as bf16");
    EXPECT_CONTAINS(read_as("/f64", DType::f32).first, "values of dataset /f64 are not exact as f32");
    EXPECT_CONTAINS(read_as("/i32", DType::f32).first, "dataset /i32 holds i32 values, not f32");
    EXPECT_CONTAINS(read_as("/i32", DType::i64).first, "dataset /i32 holds i32 values, not i64");
}

TEST_F(CheckpointFile, WhatDoesNotFitIsNamedOnAllRanks) {
    {
        CheckpointWriter writer(world, file("a.h5"));
        write(writer, DType::f32, {6, 5}, Cut::rows);
        writer.commit();
    }
    const CheckpointReader reader(world, file("a.h5"));
    const auto error_of = [&](const std::string& path, Shape shape) {
        const Shard shard = cut(shape, Cut::rows, world.rank(), world.size());
        return agreed_error([&] { reader.read(path, shard, local_tensor(DType::f32, shard, 0, false)); });
    };
    EXPECT_CONTAINS(error_of("/x", {5, 6}), file("a.h5") + ": dataset /x is 6x5, not 5x6");
    EXPECT_CONTAINS(error_of("/x", {30}), "dataset /x is 6x5, not 30");
    EXPECT_CONTAINS(error_of("/y", {6, 5}), file("a.h5") + " has no dataset /y");
    EXPECT_CONTAINS(agreed_error([&] { reader.attribute("/x", "scale"); }), "has no attribute scale at /x");
    EXPECT_CONTAINS(agreed_error([&] { CheckpointReader(world, file("none.h5")); }),
                    "cannot open `" + file("none.h5") + "` (No such file or directory); check the path");
    EXPECT_CONTAINS(agreed_error([&] { CheckpointReader(world, shared); }),
                    "not a regular file but a folder");
}

TEST_F(CheckpointFile, AttributesComeBackOnAllRanks) {
    {
        CheckpointWriter writer(world, file("a.h5"));
        writer.attribute("/", "step", std::int64_t{-5});
        writer.attribute("/", "config", std::string(70000, 'c') + "\n# \xC3\xA4");
        writer.attribute("/deep/er/group", "nothing", std::string());
        write(writer, DType::f32, {6, 5}, Cut::rows);
        writer.attribute("/x", "scale", 0.1);
        writer.attribute("/", "step", std::int64_t{12});  // the last one counts
        writer.commit();
    }
    const CheckpointReader reader(world, file("a.h5"));
    EXPECT_EQ(std::get<std::int64_t>(reader.attribute("/", "step")), 12);
    EXPECT_EQ(std::get<std::string>(reader.attribute("/", "config")),
              std::string(70000, 'c') + "\n# \xC3\xA4");
    EXPECT_EQ(std::get<std::string>(reader.attribute("/deep/er/group", "nothing")), "");
    EXPECT_EQ(std::get<double>(reader.attribute("/x", "scale")), 0.1);
    EXPECT_FALSE(reader.has_attribute("/x", "step"));
    EXPECT_FALSE(reader.has_attribute("/y", "step"));
    if (world.rank() == 0) {
        EXPECT_EQ(verify_file(file("a.h5")), std::vector<std::string>{});
    }
}

TEST_F(CheckpointFile, ShowsOnlyWhenComplete) {
    const std::string path = checkpoint_path(shared, 7);
    EXPECT_EQ(path, file("step_00000007.h5"));
    {
        CheckpointWriter writer(world, path);
        write(writer, DType::f32, {6, 5}, Cut::rows);
        writer.stage();
        writer.write_staged(CheckpointWriter::Threads::all);
        EXPECT_FALSE(exists("step_00000007.h5"));
        EXPECT_TRUE(exists("step_00000007.h5.partial"));
        EXPECT_TRUE(list_checkpoints(shared).empty());
        barrier(world);
    }
    barrier(world);
    EXPECT_FALSE(exists("step_00000007.h5.partial")) << "not committed, yet something stays";
    EXPECT_FALSE(exists("step_00000007.h5"));
    barrier(world);
    {
        CheckpointWriter writer(world, path);
        write(writer, DType::f32, {6, 5}, Cut::rows);
        const std::uint64_t bytes = writer.commit();
        EXPECT_EQ(bytes, std::filesystem::file_size(path));
        EXPECT_FALSE(exists("step_00000007.h5.partial"));
    }
    ASSERT_EQ(list_checkpoints(shared).size(), 1u);
    EXPECT_EQ(list_checkpoints(shared)[0], std::pair(std::int64_t{7}, path));
}

TEST_F(CheckpointFile, SpaceIsLookedAtBeforeWriting) {
    const auto error_of = [&](const std::string& name, Shape shape) {
        return agreed_error([&] {
            CheckpointWriter writer(world, file(name));
            const Shard nothing{"x", shape, 0, 0, 0, 0, 0};
            writer.write("/x", nothing, DType::f32, [](auto, auto, std::byte*) {});
            writer.commit();
        });
    };
    EXPECT_CONTAINS(error_of("a.h5", {std::int64_t{1} << 29, std::int64_t{1} << 29}),
                    "cannot write " + file("a.h5") + " (no space left: 1024 PiB needed, ");
    EXPECT_CONTAINS(error_of("no/a.h5", {0}), file("no"));
    EXPECT_FALSE(exists("a.h5.partial"));
}

/// Open descriptors of this process for a file.
std::vector<int> descriptors_of(const std::string& path) {
    std::vector<int> found;
    DIR* const folder = ::opendir("/proc/self/fd");
    while (const dirent* entry = ::readdir(folder)) {
        char target[4096] = {};
        const std::string link = std::string("/proc/self/fd/") + entry->d_name;
        if (::readlink(link.c_str(), target, sizeof target - 1) > 0 && path == target)
            found.push_back(std::atoi(entry->d_name));
    }
    ::closedir(folder);
    return found;
}

/// From now on every descriptor of `path` here leads elsewhere: /dev/full answers "No space left on device".
void redirect(const std::string& path, const char* elsewhere, int flags) {
    const std::vector<int> all = descriptors_of(path);
    ASSERT_FALSE(all.empty()) << path;
    const int other = ::open(elsewhere, flags);
    for (int fd : all) ASSERT_EQ(::dup2(other, fd), fd);
    ::close(other);
}

class CheckpointFailure : public CheckpointFile {
  protected:
    /// The message of a save for which `spoil` is called on one rank before it writes. An older file has the
    /// same name.
    template <class Spoil>
    std::string message_after(int rank, Spoil spoil) {
        const std::string path = file("a.h5");
        {
            CheckpointWriter writer(world, path);
            write(writer, DType::f64, {6, 5}, Cut::columns);
            writer.commit();
        }
        const std::string message = agreed_error([&] {
            CheckpointWriter writer(world, path, least_window_bytes);  // every rank has a window
            write(writer, DType::f32, {600, 500}, Cut::rows, 0, "/bad");
            writer.stage();
            if (world.rank() == rank) spoil();
            writer.write_staged(CheckpointWriter::Threads::all);
            writer.commit();
        });
        barrier(world);
        EXPECT_FALSE(exists("a.h5.partial"));
        barrier(world);
        EXPECT_TRUE(reads_back(CheckpointReader(world, path), "/x", DType::f64, {6, 5}, Cut::rows, 0));
        if (world.rank() == 0) {
            EXPECT_EQ(verify_file(path), std::vector<std::string>{});
        }
        return message;
    }
    /// How a message ends that gives `reason` for a failed write.
    std::string ends(const std::string& reason, int rank) const {
        return fmt::format("{}); {}{}", reason, writing_advice, on_rank(rank));
    }
    std::string on_rank(int rank) const {
        return world.size() == 1 ? "" : fmt::format(" [on rank {} of {}]", rank, world.size());
    }
};

TEST_F(CheckpointFailure, FullDiskOnOneRankIsEveryRanks) {
    for (int rank = 0; rank < world.size(); ++rank) {
        const std::string message =
            message_after(rank, [&] { redirect(file("a.h5.partial"), "/dev/full", O_WRONLY); });
        EXPECT_CONTAINS(message, "cannot write " + file("a.h5") + " (write at byte ");
        EXPECT_CONTAINS(message, ends("No space left on device", rank));
    }
}

TEST_F(CheckpointFailure, BadDescriptorOnOneRankIsEveryRanks) {
    for (int rank = 0; rank < world.size(); ++rank) {
        const std::string message =
            message_after(rank, [&] { redirect(file("a.h5.partial"), "/dev/null", O_RDONLY); });
        EXPECT_CONTAINS(message, ends("Bad file descriptor", rank));
    }
}

TEST_F(CheckpointFailure, LimitOfFileSizeIsAnErrorAndNoSignal) {
    const int last = world.size() - 1;
    std::optional<FileSizeLimit> limit;
    EXPECT_CONTAINS(agreed_error([&] {
                        if (world.rank() == last) limit.emplace(1000);
                        CheckpointWriter writer(world, file("a.h5"));
                        write(writer, DType::f32, {251}, Cut::rows);
                        writer.commit();
                    }),
                    "(1004 B needed, files are limited to 1000 B); raise `ulimit -f`" + on_rank(last));
    limit.reset();
    CheckpointWriter writer(world, file("a.h5"), least_window_bytes);
    write(writer, DType::f32, {600, 500}, Cut::rows);
    const std::string message = agreed_error([&] {
        writer.stage();
        if (world.rank() == last) limit.emplace(1000);
        writer.write_staged(CheckpointWriter::Threads::all);
        writer.commit();
    });
    EXPECT_CONTAINS(message, "(write at byte ");
    EXPECT_CONTAINS(message, ends("File too large", last));
    limit.reset();
    barrier(world);
}

/// The disk is full only for the structure, which rank 0 writes at the end.
TEST_F(CheckpointFailure, FullDiskAtTheVeryEnd) {
    const std::string path = file("b.h5");
    const std::string message = agreed_error([&] {
        CheckpointWriter writer(world, path);
        write(writer, DType::f32, {60, 50}, Cut::rows);
        writer.stage();
        writer.write_staged(CheckpointWriter::Threads::all);
        if (world.rank() == 0) redirect(path + ".partial", "/dev/full", O_RDWR);
        writer.commit();
    });
    EXPECT_CONTAINS(message, "cannot write " + path);
    barrier(world);
    EXPECT_FALSE(exists("b.h5"));
    EXPECT_FALSE(exists("b.h5.partial"));
    barrier(world);
    {
        CheckpointWriter writer(world, path);  // HDF5 still works
        write(writer, DType::f32, {60, 50}, Cut::rows);
        writer.commit();
    }
    EXPECT_TRUE(reads_back(CheckpointReader(world, path), "/x", DType::f32, {60, 50}, Cut::columns, 0));
}

TEST_F(CheckpointFailure, UnreadableFileOnOneRankIsEveryRanks) {
    const std::string path = file("a.h5");
    {
        CheckpointWriter writer(world, path);
        write(writer, DType::f32, {600, 50}, Cut::rows);
        writer.commit();
    }
    for (int rank = 0; rank < world.size(); ++rank) {
        const CheckpointReader reader(world, path, least_window_bytes);
        if (world.rank() == rank) redirect(path, "/dev/null", O_RDONLY);
        const Shard shard = cut({600, 50}, Cut::rows, world.rank(), world.size());
        const std::string message =
            agreed_error([&] { reader.read("/x", shard, local_tensor(DType::f32, shard, 0, false)); });
        EXPECT_CONTAINS(message, "cannot read " + path + " (dataset /x: the file ends at byte ");
        EXPECT_CONTAINS(message, on_rank(rank));
    }
}

TEST_F(CheckpointFailure, PartsThatDoNotCoverTheTensorAreAnInternalError) {
    const std::string message = test::message_of<InternalError>([&] {
        CheckpointWriter writer(world, file("a.h5"));
        Shard shard = cut({6, 5}, Cut::rows, world.rank(), world.size());
        if (world.rank() == 0) --shard.rows;
        declared.push_back(local_tensor(DType::f32, shard, 1, true));
        writer.write("/x", shard, declared.back());
        writer.commit();
    });
    EXPECT_EQ(message, broadcast(world, message)) << "ranks disagree";
    EXPECT_CONTAINS(message, "internal error: dataset /x: parts hold 25 of 30 values");
}

}  // namespace
}  // namespace switchyard

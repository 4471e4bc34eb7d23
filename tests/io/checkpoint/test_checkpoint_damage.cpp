// One flipped byte anywhere in a checkpoint file, in values or structure, is found by verify_file() and by
// reading. Bytes where it is not found are gaps that no reader looks at: HDF5 counts as many unused bytes.
#include <gtest/gtest.h>

#include <deque>

#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5.hpp"
#include "support/checkpoint_data.hpp"
#include "support/temporary_directory.hpp"
#include "support/watched.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;
using test::HostTensor;
using test::TemporaryDirectory;

/// A file of whole tensors, which live until it is committed.
class WholeFile {
  public:
    explicit WholeFile(const std::string& path) : writer(Comm(), path) {}
    void write(const std::string& path, DType dtype, Shape shape) {
        values_.push_back(test::whole_tensor(dtype, shape));
        writer.write(path, test::cut(shape, test::Cut::rows, 0, 1), values_.back());
    }
    CheckpointWriter writer;

  private:
    std::deque<HostTensor> values_;
};

/// All that real checkpoints have: attributes and links few enough to lie in their object and too many for
/// that (HDF5 then keeps them in a heap with an index), matrices, vectors, tables, an empty one.
void write_small_checkpoint(const std::string& path) {
    WholeFile file(path);
    CheckpointWriter& writer = file.writer;
    for (int i = 0; i < 12; ++i) writer.attribute("/", "key " + std::to_string(i), std::int64_t{i});
    writer.attribute("/", "config", std::string("[run]\nsteps = 20\n"));
    writer.attribute("/data", "next_sample", std::int64_t{240});
    for (int i = 0; i < 10; ++i) file.write("/model/layers." + std::to_string(i), DType::f32, {3, 2});
    writer.attribute("/model/layers.3", "scale", 0.25);
    file.write("/method/bank/A", DType::bf16, {5, 7});
    file.write("/method/bank/none", DType::f64, {0, 7});
    file.write("/optimizer/step", DType::i32, {9});
    file.write("/optimizer/tables", DType::i64, {9});
    writer.commit();
}

/// Reads all datasets as a resumed run does; throws if anything is wrong.
void read_everything(const std::string& path, const std::vector<DatasetInfo>& datasets) {
    const CheckpointReader reader(Comm(), path);
    for (const DatasetInfo& d : datasets) {
        const Shape shape = reader.shape(d.path);
        const DType dtype = d.dtype == "i32"   ? DType::i32
                            : d.dtype == "i64" ? DType::i64
                                               : dtype_from_name(d.dtype);
        reader.read(d.path, test::cut(shape, test::Cut::rows, 0, 1), HostTensor(dtype, shape));
    }
}

/// With sanitizers, which take five times as long, one byte of this many; the other build takes each.
const std::int64_t stride = test::instrumented() ? 4 : 1;

/// Places of bytes whose change is not found. Each byte in turn is changed, tried and put back.
struct Missed {
    std::vector<std::int64_t> by_verify, by_reading;
};

Missed flip_every_byte(const std::string& path) {
    const std::vector<DatasetInfo> datasets = file_contents(path).datasets;
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto put = [&](std::int64_t at, char byte) { file.seekp(at).write(&byte, 1).flush(); };
    Missed missed;
    for (std::int64_t at = 0; at < size; at += stride) {
        char byte = 0;
        file.seekg(at).read(&byte, 1);
        put(at, static_cast<char>(byte ^ static_cast<char>(1 + mix64(static_cast<std::uint64_t>(at)) % 255)));
        const bool verifies = verify_file(path).empty();
        if (verifies) missed.by_verify.push_back(at);
        if ((verifies || at % 5 == 0) &&
            test::message_of<UserError>([&] { read_everything(path, datasets); }).empty())
            missed.by_reading.push_back(at);
        put(at, byte);
    }
    return missed;
}

/// Bytes that HDF5 has allocated for superblock, object headers, heaps, indices and values.
std::int64_t allocated_bytes(const std::string& path) {
    hsize_t bytes = 0;
    for (const DatasetInfo& d : file_contents(path).datasets) bytes += d.bytes;
    const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "H5Fopen");
    H5F_info2_t info{};
    SWITCHYARD_HDF5(H5Fget_info2(file, &info));
    bytes += info.super.super_size + info.super.super_ext_size;
    const auto add = [](hid_t, const char*, const H5O_info_t* object, void* sum) -> herr_t {
        const auto& [index, attributes] = object->meta_size;
        *static_cast<hsize_t*>(sum) += object->hdr.space.total + index.index_size + index.heap_size +
                                       attributes.index_size + attributes.heap_size;
        return 0;
    };
    SWITCHYARD_HDF5(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, add, &bytes, H5O_INFO_ALL));
    return static_cast<std::int64_t>(bytes);
}

/// Those of them that no reader looks at (HDF5 file format specification 3.0, III.A.2 and III.D): index nodes
/// after their last record, and the lists of free places in heaps, which are for writers.
std::int64_t bytes_for_writers(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto number = [&](std::size_t at, std::size_t bytes) {
        std::int64_t value = 0;
        std::memcpy(&value, text.data() + at, bytes);
        return value;
    };
    std::int64_t bytes = 0;
    for (std::size_t at = 0; (at = text.find("BTHD", at)) != std::string::npos;
         ++at) {  // a version 2 B-tree's header
        const std::int64_t node = number(at + 6, 4), record = number(at + 10, 2), depth = number(at + 12, 2);
        EXPECT_EQ(depth, 0);
        const std::int64_t records = number(at + 24, 2),
                           frame = 4 + 1 + 1 + 4;  // signature, version, type; checksum
        bytes += node - frame - records * record;
    }
    for (std::size_t at = 0; (at = text.find("FSHD", at)) != std::string::npos;
         ++at)                             // a free-space manager's header
        bytes += 82 + number(at + 70, 8);  // and its list
    return bytes;
}

TEST(CheckpointDamage, EveryFlippedByteIsFoundButInGaps) {
    const TemporaryDirectory folder;
    const std::string path = folder.file("step_00000001.h5"), copy = folder.file("copy.h5");
    write_small_checkpoint(path);
    ASSERT_EQ(verify_file(path), std::vector<std::string>{});
    ASSERT_NO_THROW(read_everything(path, file_contents(path).datasets));
    std::filesystem::copy_file(path, copy);

    const Missed missed = flip_every_byte(path);
    EXPECT_EQ(missed.by_verify, missed.by_reading);
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
    if (stride == 1)
        EXPECT_EQ(static_cast<std::int64_t>(missed.by_verify.size()),
                  size - allocated_bytes(path) + bytes_for_writers(path));

    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    for (std::int64_t at : missed.by_verify) file.seekp(at).put('\xA5');
    file.close();
    EXPECT_EQ(verify_file(path), std::vector<std::string>{});
    EXPECT_TRUE(diff_files(path, copy, 0).empty());
}

TEST(CheckpointDamage, EveryOtherLengthIsFound) {
    const TemporaryDirectory folder;
    const std::string path = folder.file("step_00000001.h5");
    write_small_checkpoint(path);
    const std::vector<DatasetInfo> datasets = file_contents(path).datasets;
    const auto found = [&](std::uintmax_t length) {
        std::filesystem::resize_file(path, length);
        return !verify_file(path).empty() &&
               !test::message_of<UserError>([&] { read_everything(path, datasets); }).empty();
    };
    const std::uintmax_t size = std::filesystem::file_size(path);
    for (std::uintmax_t more : {1u, 8u, 512u, 4096u, 100000u}) EXPECT_TRUE(found(size + more)) << more;
    for (std::uintmax_t length = size; length-- > 0;
         length = length > 7 && length < size - 7 ? length - 6 : length)
        EXPECT_TRUE(found(length)) << length;
}

TEST(CheckpointDamage, FilesOfOtherKindsAreNamed) {
    const TemporaryDirectory folder;
    const auto problem = [&](const std::string& path) {
        const std::vector<std::string> problems = verify_file(path);
        EXPECT_EQ(problems.size(), 1u) << path;
        return problems.empty() ? "" : problems[0];
    };
    EXPECT_CONTAINS(test::message_of<UnreadableError>([&] { verify_file(folder.file("none.h5")); }),
                    "(No such file or directory); check the path");
    EXPECT_CONTAINS(problem(folder.path()), "not a regular file but a folder");
    EXPECT_CONTAINS(problem(folder.write("empty.h5", "")), "it is damaged, incomplete or of another kind");
    EXPECT_CONTAINS(problem(folder.write("text.h5", "step 1, loss 7")),
                    "it is damaged, incomplete or of another kind");
    const std::string other = folder.file("other.h5");
    {
        const Handle file(H5Fcreate(other.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose,
                          "H5Fcreate");
    }
    EXPECT_CONTAINS(problem(other), "is not a checkpoint of this program");
}

/// Changes that HDF5 accepts, because its own tools made them and renewed its checksums.
TEST(CheckpointDamage, WhatAnotherProgramChangedIsFound) {
    const TemporaryDirectory folder;
    const std::string path = folder.file("step_00000001.h5"), copy = folder.file("copy.h5");
    write_small_checkpoint(copy);
    const auto problems_after = [&](auto change) {
        std::filesystem::copy_file(copy, path, std::filesystem::copy_options::overwrite_existing);
        {
            const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose, "H5Fopen");
            change(file);
        }
        std::string all;
        for (const std::string& problem : verify_file(path)) all += problem + "\n";
        EXPECT_NE(test::message_of<UserError>([&] { CheckpointReader(Comm(), path); }), "");
        return all;
    };
    const std::string changed = "is damaged or was changed (its attributes and list of datasets";
    EXPECT_CONTAINS(problems_after([](hid_t file) { H5Ldelete(file, "/model/layers.4", H5P_DEFAULT); }),
                    changed);
    EXPECT_CONTAINS(problems_after([](hid_t file) { H5Adelete(file, "key 3"); }), changed);
    EXPECT_CONTAINS(problems_after([](hid_t file) {
                        H5Lmove(file, "/model/layers.4", file, "/model/layers.x", H5P_DEFAULT, H5P_DEFAULT);
                    }),
                    changed);
    EXPECT_CONTAINS(problems_after([](hid_t file) {
                        const Handle step(H5Aopen(file, "key 3", H5P_DEFAULT), H5Aclose, "H5Aopen");
                        const std::int64_t four = 4;
                        H5Awrite(step, H5T_NATIVE_INT64, &four);
                    }),
                    changed);
    EXPECT_CONTAINS(problems_after([](hid_t file) {
                        const Handle x(H5Dopen2(file, "/model/layers.4", H5P_DEFAULT), H5Dclose, "H5Dopen2");
                        H5Adelete(x, "checksum");
                    }),
                    "dataset /model/layers.4 has no checksum");
}

}  // namespace
}  // namespace switchyard

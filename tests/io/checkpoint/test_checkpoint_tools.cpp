// What one process does with checkpoint files: lists them, says what is in them, compares them.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "support/checkpoint_data.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::HostTensor;
using test::TemporaryDirectory;

/// A file with one matrix, one vector and attributes; `change` writes more or something else first.
template <class Change>
std::string write_file(const TemporaryDirectory& folder, const std::string& name, const HostTensor& x,
                       Change change) {
    CheckpointWriter writer(Comm(), folder.file(name));
    writer.attribute("/", "step", std::int64_t{7});
    writer.attribute("/", "host", name);  // provenance
    change(writer);
    writer.write("/model/x", test::cut(x.shape(), test::Cut::rows, 0, 1), x);
    writer.attribute("/model/x", "scale", 0.5);
    writer.commit();
    return folder.file(name);
}
std::string write_file(const TemporaryDirectory& folder, const std::string& name, const HostTensor& x) {
    return write_file(folder, name, x, [](CheckpointWriter&) {});
}

std::string differences(const std::string& a, const std::string& b, double tolerance = 0) {
    std::string all;
    for (const Difference& d : diff_files(a, b, tolerance)) all += d.path + ": " + d.text + "\n";
    return all;
}

TEST(CheckpointList, CompleteFilesOnlyNewestFirst) {
    const TemporaryDirectory folder;
    EXPECT_TRUE(list_checkpoints(folder.file("none")).empty());
    EXPECT_TRUE(list_checkpoints(folder.path()).empty());
    for (const char* name :
         {"step_00000010.h5", "step_00000009.h5", "step_123456789.h5", "step_00000011.h5.partial",
          "step_00000012.h5.damaged", "step_13.h5", "step_-0000014.h5", "step_00000015.h5x",
          "xstep_00000016.h5", "step_.h5", "step", "notes.txt", "step_00000017 .h5"})
        folder.write(name, "");
    const std::vector<std::pair<std::int64_t, std::string>> expected{
        {123456789, folder.file("step_123456789.h5")},
        {10, folder.file("step_00000010.h5")},
        {9, folder.file("step_00000009.h5")}};
    EXPECT_EQ(list_checkpoints(folder.path()), expected);
    EXPECT_EQ(checkpoint_path("a/b", 42), "a/b/step_00000042.h5");
    EXPECT_CONTAINS(test::message_of<UserError>([&] { list_checkpoints(folder.write("plain", "")); }),
                    "cannot list the checkpoints in " + folder.file("plain") + " (Not a directory)");
}

TEST(CheckpointContents, NamesTypesShapesAndAttributes) {
    const TemporaryDirectory folder;
    const FileContents contents =
        file_contents(write_file(folder, "a.h5", test::whole_tensor(DType::bf16, {3, 5})));
    ASSERT_EQ(contents.datasets.size(), 1u);
    EXPECT_EQ(contents.datasets[0].path, "/model/x");
    EXPECT_EQ(contents.datasets[0].dtype, "f32");
    EXPECT_EQ(contents.datasets[0].shape, (std::vector<std::int64_t>{3, 5}));
    EXPECT_EQ(contents.datasets[0].bytes, 60u);
    EXPECT_EQ(contents.file_bytes, std::filesystem::file_size(folder.file("a.h5")));
    const std::map<std::string, std::map<std::string, Attribute>> expected{
        {"/", {{"host", std::string("a.h5")}, {"step", std::int64_t{7}}}},
        {"/model", {}},
        {"/model/x", {{"scale", 0.5}}}};
    EXPECT_EQ(contents.attributes, expected);
}

TEST(CheckpointDiff, EqualContentOfAnotherHostIsIdentical) {
    const TemporaryDirectory folder;
    for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::u8}) {
        const HostTensor x = test::whole_tensor(dtype, {30, 5});
        EXPECT_EQ(differences(write_file(folder, "a.h5", x), write_file(folder, "b.h5", x)), "");
    }
}

TEST(CheckpointDiff, BytesAreNumbersFromZeroTo255) {
    const TemporaryDirectory folder;
    const HostTensor x(DType::u8, {1, 2}, {255, 3}), y(DType::u8, {1, 2}, {255, 4});
    EXPECT_CONTAINS(differences(write_file(folder, "a.h5", x), write_file(folder, "b.h5", y)),
                    "largest difference 1,");
}

TEST(CheckpointDiff, BitsCountUnlessToleranceIsGiven) {
    const TemporaryDirectory folder;
    HostTensor x(DType::f32, {2, 3}, {4, -8, 0, 1, 2, 3}), y = x.clone();
    const std::string a = write_file(folder, "a.h5", x);
    y.set(3, 1 + 0x1p-23);
    y.set(2, -0.0);
    const std::string b = write_file(folder, "b.h5", y);
    EXPECT_EQ(differences(a, b),
              "/model/x: 2 of 6 values differ, largest difference 1.19e-07, relative to the largest value "
              "1.49e-08\n");
    EXPECT_EQ(differences(a, b, 1.4e-8).substr(0, 34), "/model/x: 1 of 6 values differ, la");
    EXPECT_EQ(differences(a, b, 1.5e-8), "");
    y.set(0, NAN);
    EXPECT_CONTAINS(differences(a, write_file(folder, "c.h5", y), 1), "/model/x: 1 of 6 values differ");
    EXPECT_CONTAINS(differences(a, folder.file("c.h5"), 1), "some of them not finite");
    EXPECT_EQ(differences(folder.file("c.h5"), folder.file("c.h5")), "") << "the same NaN is no difference";
}

TEST(CheckpointDiff, ShapesTypesAttributesAndObjects) {
    const TemporaryDirectory folder;
    const HostTensor x = test::whole_tensor(DType::f32, {6, 5});
    const std::string a = write_file(folder, "a.h5", x);
    const auto against = [&](const auto&... arguments) {
        return differences(a, write_file(folder, "b.h5", arguments...));
    };
    EXPECT_EQ(against(test::whole_tensor(DType::f32, {5, 6})),
              "/model/x: is f32 6x5 in the first file, f32 5x6 in the second\n");
    EXPECT_EQ(against(test::whole_tensor(DType::i32, {6, 5})),
              "/model/x: is f32 6x5 in the first file, i32 6x5 in the second\n");
    EXPECT_EQ(against(x, [](CheckpointWriter& w) { w.attribute("/", "step", std::int64_t{8}); }),
              "/: attribute step is 7 in the first file, 8 in the second\n");
    EXPECT_EQ(against(x, [](CheckpointWriter& w) { w.attribute("/", "more", std::string("text")); }),
              "/: attribute more only in the second file\n");
    EXPECT_EQ(against(x, [](CheckpointWriter& w) { w.attribute("/data", "next", 1.5); }),
              "/data: only in the second file\n");
    EXPECT_EQ(against(x,
                      [&](CheckpointWriter& w) {
                          w.write("/model/y", test::cut(x.shape(), test::Cut::rows, 0, 1), x);
                      }),
              "/model/y: only in the second file\n");
    EXPECT_CONTAINS(test::message_of<UserError>([&] { differences(a, folder.file("none.h5")); }), "none.h5");
}

}  // namespace
}  // namespace switchyard

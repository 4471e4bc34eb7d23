// HDF5 files of unknown origin: attributes must have the right type, and objects and values must be in the
// file itself.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/error.hpp"
#include "io/files/hdf5.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;
using test::message_of;
using test::TemporaryDirectory;

/// A new file in its own folder.
struct NewFile {
    TemporaryDirectory folder;
    std::string path = folder.file("file.h5");
    Handle file = (hdf5::silence_errors(), hdf5::create_file(path, H5P_DEFAULT, hdf5::file_access()));
    Handle root{H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2"};

    void attribute(const char* key, hid_t type, const void* value, hsize_t count = 1) const {
        const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, "H5Screate_simple");
        const Handle made(H5Acreate2(root, key, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                          "H5Acreate2");
        SWITCHYARD_HDF5(H5Awrite(made, type, value));
    }
    Handle dataset(const char* name, std::vector<hsize_t> extents, hid_t creation = H5P_DEFAULT) const {
        const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                           H5Sclose, "H5Screate_simple");
        return {H5Dcreate2(file, name, H5T_STD_U16LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose,
                "H5Dcreate2"};
    }
    Handle creation() const { return {H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate"}; }
    std::string shape_error(const Handle& dataset, int dimensions = 1) const {
        return message_of<UserError>([&] { hdf5::checked_shape(dataset, dimensions, 1 << 20); });
    }
    std::string link_error() const {
        std::set<std::string> seen;
        return message_of<UserError>([&] { hdf5::links_of(root, seen); });
    }
    std::string open_error(const std::string& name) const {
        return message_of<UserError>([&] { hdf5::open_object(file, name); });
    }
};

TEST(Hdf5, test_finding_21_attributes_are_of_the_type_and_range_that_they_must_have) {
    const NewFile f;
    const std::int64_t integer = (std::int64_t{1} << 32) + 2, pair[] = {1, 2};
    const std::uint64_t word = ~std::uint64_t{0};
    const double real = 0.5;
    f.attribute("integer", H5T_STD_I64LE, &integer);
    f.attribute("word", H5T_STD_U64LE, &word);
    f.attribute("real", H5T_IEEE_F64LE, &real);
    f.attribute("pair", H5T_STD_I64LE, pair, 2);
    f.attribute("narrow", H5T_STD_I32LE, &integer);
    const Handle text_type(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
    SWITCHYARD_HDF5(H5Tset_size(text_type, 8));
    f.attribute("text", text_type, "four\0\0\0\0");

    EXPECT_EQ(hdf5::integer_attribute(f.root, "integer"), integer);
    EXPECT_EQ(hdf5::word_attribute(f.root, "word"), word);
    EXPECT_EQ(hdf5::real_attribute(f.root, "real"), real);
    EXPECT_EQ(hdf5::text_attribute(f.root, "text"), "four");
    const auto error = [&](auto read, const char* key) {
        return message_of<UserError>([&] { read(f.root, key); });
    };
    const auto as_integer = [](hid_t o, const char* key) { hdf5::integer_attribute(o, key); };
    const auto as_text = [](hid_t o, const char* key) { hdf5::text_attribute(o, key); };
    for (const char* key : {"word", "real", "narrow", "text"})
        EXPECT_CONTAINS(error(as_integer, key), std::string("attribute ") + key + " is not a 64-bit integer");
    EXPECT_CONTAINS(error(as_integer, "pair"), "attribute pair is not a single value");
    EXPECT_CONTAINS(error(as_integer, "none"), "attribute none is missing");
    EXPECT_CONTAINS(error(as_text, "integer"), "attribute integer is not text");
    EXPECT_CONTAINS(message_of<UserError>([&] { hdf5::integer_attribute(f.root, "integer", 0, 31999); }),
                    "attribute integer is 4294967298 (it must be from 0 to 31999)");
    EXPECT_CONTAINS(message_of<UserError>([&] { hdf5::text_attribute(f.root, "text", 7); }), "8 bytes");
}

TEST(Hdf5, test_finding_18_links_stay_in_the_file) {
    {
        const NewFile f;
        SWITCHYARD_HDF5(
            H5Lcreate_external("/etc/hostname", "/x", f.root, "outside", H5P_DEFAULT, H5P_DEFAULT));
        EXPECT_CONTAINS(f.link_error(), "outside is a link to elsewhere");
        EXPECT_CONTAINS(f.open_error("/outside"), "outside is a link to elsewhere");
        EXPECT_CONTAINS(f.open_error("/outside/tokens"), "outside is a link to elsewhere");
    }
    const NewFile f;
    const Handle real = f.dataset("real", {4});
    SWITCHYARD_HDF5(H5Lcreate_soft("/real", f.root, "soft", H5P_DEFAULT, H5P_DEFAULT));
    EXPECT_CONTAINS(f.link_error(), "soft is a link to elsewhere");
    EXPECT_CONTAINS(f.open_error("/soft"), "soft is a link to elsewhere");
    EXPECT_EQ(f.open_error("/real"), "");
}

TEST(Hdf5, test_finding_21_an_object_has_one_name) {
    const NewFile f;
    const Handle real = f.dataset("real", {4});
    EXPECT_EQ(f.link_error(), "");
    SWITCHYARD_HDF5(H5Lcreate_hard(f.root, "real", f.root, "second", H5P_DEFAULT, H5P_DEFAULT));
    EXPECT_CONTAINS(f.link_error(), "has another name already");
}

TEST(Hdf5, test_finding_18_values_lie_in_the_file) {
    const NewFile f;
    const Handle external = f.creation(), virtual_one = f.creation();
    SWITCHYARD_HDF5(H5Pset_external(external, "/etc/passwd", 0, 8));
    EXPECT_CONTAINS(f.shape_error(f.dataset("external", {4}, external)),
                    "in another file (external storage)");
    const hsize_t four = 4;
    const Handle space(H5Screate_simple(1, &four, nullptr), H5Sclose, "H5Screate_simple");
    const std::string pipe = f.folder.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    SWITCHYARD_HDF5(H5Pset_virtual(virtual_one, space, pipe.c_str(), "/x", space));
    EXPECT_CONTAINS(f.shape_error(f.dataset("virtual", {4}, virtual_one)), "a virtual dataset");
}

TEST(Hdf5, test_finding_21_stored_bytes_cover_extents) {
    const NewFile f;
    const auto chunked = [&](hsize_t chunk) {
        Handle creation = f.creation();
        SWITCHYARD_HDF5(H5Pset_chunk(creation, 1, &chunk));
        return creation;
    };
    EXPECT_CONTAINS(f.shape_error(f.dataset("huge", {hsize_t{1} << 40}, chunked(1024))),
                    "its values need 2199023255552 bytes, the file has 1048576");
    EXPECT_CONTAINS(f.shape_error(f.dataset("product", {hsize_t{1} << 20, hsize_t{1} << 20}), 2),
                    "its values need");
    EXPECT_CONTAINS(f.shape_error(f.dataset("overflow", {hsize_t{1} << 32, hsize_t{1} << 30}), 2),
                    "more values than can be counted");
    EXPECT_CONTAINS(f.shape_error(f.dataset("dimensions", {2, 2})), "it has 2 dimensions");
    EXPECT_CONTAINS(f.shape_error(f.dataset("chunk", {1 << 27}, chunked(1 << 26))),
                    "its chunks have more than");
    const Handle empty = f.dataset("empty", {100}, chunked(16));
    EXPECT_EQ(f.shape_error(empty), "");
    EXPECT_CONTAINS(message_of<UserError>([&] { hdf5::require_stored(empty, 20, 5); }), "never written");
}

TEST(Hdf5, FiltersAreThoseThatComeWithTheLibrary) {
    const NewFile f;
    Handle creation = f.creation();
    const hsize_t chunk = 4;
    SWITCHYARD_HDF5(H5Pset_chunk(creation, 1, &chunk));
    SWITCHYARD_HDF5(H5Pset_filter(creation, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr));
    EXPECT_CONTAINS(f.shape_error(f.dataset("zstandard", {4}, creation)), "filter 32015");
}

TEST(Hdf5, test_finding_08_no_file_is_locked) {
    hdf5::silence_errors();
    EXPECT_STREQ(std::getenv("HDF5_USE_FILE_LOCKING"), "FALSE");
    const NewFile f;
    SWITCHYARD_HDF5(H5Fflush(f.file, H5F_SCOPE_GLOBAL));
    EXPECT_NO_THROW(hdf5::open_file(f.folder.write("copy.h5", f.folder.read("file.h5"))));
}

}  // namespace
}  // namespace switchyard

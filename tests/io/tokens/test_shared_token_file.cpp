// RANKS: 1 2 4
// One rank reads the structure of a token file for all. The other ranks are given a path of their own, with a
// file in which there is nothing but what they may look at.
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "io/files/files.hpp"
#include "io/tokens/token_facts.hpp"
#include "io/tokens/token_format.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;
using test::all_ids;
using test::message_of;
using namespace token_format;

/// A file as other programs write it: values one behind the other, without a filter. Documents of five
/// tokens, the last one the end token 0.
void write_plain_file(const std::string& path, hid_t id_type, hid_t memory_type) {
    const auto write = [](hid_t group, const char* name, hid_t type, hid_t memory, const auto& values) {
        const hsize_t size = values.size();
        const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "H5Screate_simple");
        const Handle dataset(H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                             H5Dclose, "H5Dcreate2");
        SWITCHYARD_HDF5(H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < values.size(); ++i)
            sum += checksum_term(i, static_cast<std::uint64_t>(values[i]));
        write_attribute(dataset, "checksum", sum);
        return sum;
    };
    const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, hdf5::file_access()), H5Fclose,
                      "H5Fcreate");
    SplitChecksums sums[2];
    for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
        const bool training = split == TokenSplit::training;
        const Handle group(H5Gcreate2(file, group_of(split), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
                           "H5Gcreate2");
        std::vector<std::int32_t> ids(training ? 500 : 50);
        std::vector<std::int64_t> starts(ids.size() / 5);
        for (std::size_t i = 0; i < ids.size(); ++i)
            ids[i] = i % 5 == 4 ? 0 : static_cast<std::int32_t>(1 + mix64(i) % 299);
        for (std::size_t i = 0; i < starts.size(); ++i) starts[i] = static_cast<std::int64_t>(5 * i);
        sums[training ? 0 : 1] = {write(group, "tokens", id_type, memory_type, ids),
                                  write(group, "document_starts", H5T_STD_I64LE, H5T_NATIVE_INT64, starts)};
    }
    const Handle group(H5Gcreate2(file, "/tokenizer", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
                       "H5Gcreate2");
    write(group, "model", H5T_STD_U8LE, H5T_NATIVE_UINT8, std::vector<std::uint8_t>{});
    write_sources(file, {{"elsewhere \xFF", 0.5, 110}});
    const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    write_attribute(root, "format", std::string(format_name));
    write_attribute(root, "format_version", std::int64_t{2});
    write_attribute(root, "vocab_size", std::int64_t{300});
    write_attribute(root, "begin_token", std::int64_t{-1});
    write_attribute(root, "end_token", std::int64_t{0});
    write_attribute(root, "tokenizer_kind", std::string("none"));
    write_attribute(root, "fingerprint", fingerprint(sums[0], sums[1]));
    write_attribute(root, "tokenizer_fingerprint", std::uint64_t{7});
}

/// A copy of which only the values of tokens and document starts are left, at their places.
void write_values_alone(const std::string& from, const std::string& to) {
    const TokenFileFacts facts = read_token_facts(from);
    const std::string bytes = read_file(from);
    std::string left(bytes.size(), '\0');
    for (const TokenFileFacts::Part& part : facts.parts)
        for (const ValuePlace& place : {part.tokens, part.starts})
            left.replace(place.offset.value(), place.size * place.element_bytes, bytes, place.offset.value(),
                         place.size * place.element_bytes);
    write_file(to, left);
}

void expect_equal(const TokenFileInfo& a, const TokenFileInfo& b) {
    EXPECT_EQ(a.format_version, b.format_version);
    EXPECT_EQ(a.vocab_size, b.vocab_size);
    EXPECT_EQ(a.num_tokens, b.num_tokens);
    EXPECT_EQ(a.num_validation_tokens, b.num_validation_tokens);
    EXPECT_EQ(a.num_documents, b.num_documents);
    EXPECT_EQ(a.num_validation_documents, b.num_validation_documents);
    EXPECT_EQ(a.begin_token, b.begin_token);
    EXPECT_EQ(a.end_token, b.end_token);
    EXPECT_EQ(a.fingerprint, b.fingerprint);
    EXPECT_EQ(a.tokenizer_fingerprint, b.tokenizer_fingerprint);
    EXPECT_EQ(a.tokenizer_kind, b.tokenizer_kind);
    EXPECT_EQ(a.tokenizer_model, b.tokenizer_model);
    EXPECT_EQ(a.sources, b.sources);
}

class SharedTokenFile : public ::testing::Test {
  protected:
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    const int last = world.size() - 1;
    test::TemporaryDirectory own;
    const std::string folder = broadcast(world, own.path());  // rank 0's
    const std::string path = folder + "/t.h5";
    const std::string mine = world.rank() == 0 ? path : own.file("t.h5");

    /// Rank 0 makes a file at `path`; all wait for it.
    void made(const std::function<void()>& make) {
        agree_on(world, [&] {
            if (world.rank() == 0) make();
        });
    }
    void make_ours() {
        made([&] { tokenize(test::quiet_options(own.write("a.txt", test::sample_text(300, 3)), path)); });
    }
    /// The file of every rank is seen by itself alone before the folders go.
    void TearDown() override { barrier(world); }

    /// All ranks throw the same AgreedError.
    std::string agreed_error(const std::function<void()>& work) {
        const std::string message =
            world.size() > 1 ? message_of<AgreedError>(work) : message_of<UserError>(work);
        EXPECT_EQ(message, broadcast(world, message));
        return message;
    }
};

TEST_F(SharedTokenFile, FactsAreThoseThatRankZeroReads) {
    make_ours();
    const std::string absent = world.rank() == 0 ? path : "/nowhere/t.h5";
    const TokenFile file = open_token_file(absent, world);
    expect_equal(file.info(), TokenFile(path).info());
    EXPECT_EQ(file.info().tokenizer_model.size(), read_token_facts(path).info.tokenizer_model.size());
    EXPECT_GT(file.info().tokenizer_model.size(), 1000u);
    EXPECT_EQ(file.info().sources.size(), 1u);
    EXPECT_EQ(file.path(), absent);
    EXPECT_EQ(tokenizer_of(file).vocab_size(), 400);
    if (world.rank() > 0) {
        const std::string message = message_of<UserError>([&] { file.open_values(); });
        EXPECT_CONTAINS(message, "`/nowhere/t.h5` cannot be read on host `" + host_name() + "`");
        EXPECT_CONTAINS(message, "all ranks must see the file that rank 0 sees");
    }
}

TEST_F(SharedTokenFile, AnyBytesTravel) {
    for (const auto& [type, memory] :
         {std::pair{H5T_STD_U16LE, H5T_NATIVE_INT32}, {H5T_STD_U32LE, H5T_NATIVE_INT32}}) {
        made([&] { write_plain_file(path, type, memory); });
        const TokenFile file = open_token_file(mine, world);
        expect_equal(file.info(), TokenFile(path).info());
        EXPECT_EQ(file.info().sources, (std::vector<TokenSource>{{"elsewhere \xFF", 0.5, 110}}));
        barrier(world);
    }
}

TEST_F(SharedTokenFile, ValuesOneBehindTheOtherAreReadWithoutAStructure) {
    for (hid_t type : {H5T_STD_U16LE, H5T_STD_U32LE}) {
        made([&] { write_plain_file(path, type, H5T_NATIVE_INT32); });
        if (world.rank() > 0) write_values_alone(path, mine);
        const TokenFile file = open_token_file(mine, world), whole(path);
        if (world.rank() > 0) {
            EXPECT_CONTAINS(message_of<UserError>([&] { TokenFile by_itself(mine); }), "not an HDF5 file");
        }
        file.open_values();
        for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
            const std::vector<std::int32_t> ids = all_ids(file, split);
            ASSERT_EQ(ids.size(), split == TokenSplit::training ? 500u : 50u);
            for (std::size_t i = 0; i < ids.size(); ++i) {
                ASSERT_EQ(ids[i], i % 5 == 4 ? 0 : static_cast<std::int32_t>(1 + mix64(i) % 299));
                ASSERT_EQ(file.document_start(split, static_cast<std::int64_t>(i)), i / 5 * 5);
            }
        }
        barrier(world);
    }
}

/// Big-endian and signed ids, ids in chunks: HDF5 reads them.
TEST_F(SharedTokenFile, ValuesOfOtherTypesAreReadAsBefore) {
    for (hid_t type : {H5T_STD_U16BE, H5T_STD_I32LE, H5T_STD_U32BE}) {
        made([&] { write_plain_file(path, type, H5T_NATIVE_INT32); });
        const TokenFile file = open_token_file(path, world);
        const std::vector<std::int32_t> ids = all_ids(file, TokenSplit::training);
        for (std::size_t i = 0; i < ids.size(); ++i)
            ASSERT_EQ(ids[i], i % 5 == 4 ? 0 : static_cast<std::int32_t>(1 + mix64(i) % 299));
        EXPECT_EQ(file.document_start(TokenSplit::training, 499), 495);
        EXPECT_EQ(verify_token_file(path), std::vector<std::string>{});
        barrier(world);
    }
}

TEST_F(SharedTokenFile, WhatRankZeroFindsWrongEndsAllWithOneMessage) {
    const auto refused = [&](const std::string& given, const std::string& part) {
        const std::string message = agreed_error([&] { open_token_file(given, world); });
        EXPECT_CONTAINS(message, part);
        EXPECT_EQ(message.find("[on rank"), std::string::npos) << message;
    };
    make_ours();
    // The others' file is whole: theirs is not asked for.
    const std::string whole = world.rank() == 0 ? "" : path;
    const auto at_rank_0 = [&](const std::string& other) { return world.rank() == 0 ? other : whole; };
    refused(at_rank_0("/nowhere/none.h5"), "none.h5` does not exist");
    refused(at_rank_0(own.write("text.h5", "ka lo mi")), "truncated, damaged or not an HDF5 file");
    refused(at_rank_0(own.path()), "not a regular file but a folder");
    made([&] {
        std::filesystem::copy_file(path, own.file("bad.h5"));
        const Handle file(H5Fopen(own.file("bad.h5").c_str(), H5F_ACC_RDWR, hdf5::file_access()), H5Fclose,
                          "H5Fopen");
        SWITCHYARD_HDF5(H5Adelete(file, "fingerprint"));
    });
    refused(at_rank_0(own.file("bad.h5")), "bad.h5` is not an intact token file");
}

TEST_F(SharedTokenFile, ARankThatSeesAnotherFileSaysSo) {
    make_ours();
    const std::string theirs = world.rank() == last && last > 0 ? own.file("other.h5") : path;
    const auto refused = [&](const std::string& part) {
        if (last == 0) return;
        const TokenFile file = open_token_file(theirs, world);
        const std::string message = agreed_error([&] { agree_on(world, [&] { file.open_values(); }); });
        EXPECT_CONTAINS(message, part);
        EXPECT_CONTAINS(message, "other.h5` cannot be read on host `" + host_name() + "`");
        EXPECT_CONTAINS(message, fmt::format("[on rank {} of {}]", last, world.size()));
    };
    refused("No such file or directory");
    const std::string bytes = read_file(path);
    own.write("other.h5", bytes + "x");
    refused(
        fmt::format("it has {} bytes here, {} where its structure was read", bytes.size() + 1, bytes.size()));
    own.write("other.h5", bytes);
    {
        const Handle file(H5Fopen(own.file("other.h5").c_str(), H5F_ACC_RDWR, hdf5::file_access()), H5Fclose,
                          "H5Fopen");
        const Handle attribute(H5Aopen(file, "fingerprint", H5P_DEFAULT), H5Aclose, "H5Aopen");
        const std::uint64_t other = 1;
        SWITCHYARD_HDF5(H5Awrite(attribute, H5T_NATIVE_UINT64, &other));
    }
    refused("its fingerprint is a different one");
}

/// Attributes, tokenizer and table of sources are read by rank 0 alone; of a file in chunks the others need
/// no more than the tokens, their checksums and the fingerprint.
TEST_F(SharedTokenFile, ValuesInChunksNeedNothingElseOfTheStructure) {
    make_ours();
    const auto bytes = std::filesystem::file_size(path) + 4096;  // room for what HDF5 adds when it deletes
    barrier(world);
    made([&] { std::filesystem::resize_file(path, bytes); });
    if (world.rank() > 0) {
        std::filesystem::copy_file(path, mine);
        {
            const Handle file(H5Fopen(mine.c_str(), H5F_ACC_RDWR, hdf5::file_access()), H5Fclose, "H5Fopen");
            for (const char* name : {"format", "format_version", "vocab_size", "end_token", "tokenizer_kind"})
                SWITCHYARD_HDF5(H5Adelete(file, name));
            for (const char* name : {sources_path, tokenizer_path, "/training/document_starts"})
                SWITCHYARD_HDF5(H5Ldelete(file, name, H5P_DEFAULT));
        }
        std::filesystem::resize_file(mine, bytes);
        EXPECT_CONTAINS(message_of<UserError>([&] { TokenFile by_itself(mine); }),
                        "not an intact token file");
    }
    const TokenFile file = open_token_file(mine, world), whole(path);
    agree_on(world, [&] { file.open_values(); });
    for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation})
        EXPECT_EQ(all_ids(file, split), all_ids(whole, split));
}

}  // namespace
}  // namespace switchyard

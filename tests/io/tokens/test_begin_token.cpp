// Begin tokens: which file tells that documents begin with one, where they are in a token file, and that
// files of version 1 and tokenizers of other kinds are still read.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/error.hpp"
#include "io/tokens/given_tokenizer.hpp"
#include "io/tokens/token_file_writer.hpp"
#include "io/tokens/token_loader.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using test::all_ids;
using test::documents;
using test::message_of;
using test::quiet_options;
using test::sample_text;
using test::TemporaryDirectory;

constexpr std::int32_t begin_id = 1, end_id = 2;  // of tokenizers trained here: <s> and </s>
constexpr const char* llama_rule = R"({"add_bos_token": true, "bos_token": "<s>", "eos_token": "</s>"})";

class BeginToken : public ::testing::Test {
  protected:
    BeginToken() {
        TokenizeOptions options =
            quiet_options(folder_.write("train.txt", sample_text(100, 1)), path("trained.h5"));
        options.validation = 0;
        model_ = tokenize(options).tokenizer_model;
        std::filesystem::create_directory(path("hf"));
        folder_.write("hf/tokenizer.model", model_);
    }

    std::string path(const std::string& name) const { return folder_.file(name); }
    /// A model directory with these files beside tokenizer.model; "" leaves one out.
    std::string directory(const std::string& tokenizer_config, const std::string& config = "",
                          const std::string& special = "") {
        const std::pair<const char*, const std::string*> files[] = {
            {"tokenizer_config.json", &tokenizer_config},
            {"config.json", &config},
            {"special_tokens_map.json", &special}};
        for (const auto& [name, text] : files) {
            std::filesystem::remove(path("hf/" + std::string(name)));
            if (!text->empty()) folder_.write("hf/" + std::string(name), *text);
        }
        return path("hf");
    }
    TokenizeOptions options_with(const std::string& tokenizer, const std::string& output) {
        TokenizeOptions options = quiet_options(folder_.write("a.txt", sample_text(60, 2)), path(output));
        options.vocab_size = 0;
        options.tokenizer = tokenizer;
        return options;
    }

    TemporaryDirectory folder_;
    std::string model_;
};

TEST_F(BeginToken, test_finding_03_a_directory_says_whether_documents_begin_with_a_token) {
    struct Case {
        const char *tokenizer_config, *config, *special;
        std::int32_t begin;
    };
    const Case cases[] = {
        {llama_rule, "", "", begin_id},
        {R"({"add_bos_token": false, "bos_token": "<s>"})", R"({"model_type": "llama"})", "", -1},
        {R"({"add_bos_token": true, "bos_token": {"content": "<s>", "lstrip": false}})", "", "", begin_id},
        {R"({"add_bos_token": true})", "", R"({"bos_token": "<s>"})", begin_id},
        {R"({"add_bos_token": true})", "", "", begin_id},                // then the model's own begin piece
        {R"({"tokenizer_class": "LlamaTokenizer"})", "", "", begin_id},  // this class adds it by default
        {R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": null})", "", "", begin_id},
        {R"({"tokenizer_class": "T5Tokenizer"})", R"({"model_type": "t5"})", "", -1},
        {"", R"({"model_type": "llama", "bos_token_id": 1})", "", begin_id},
        {"", R"({"model_type": "t5"})", "", -1},
        {"", "", "", -1},  // a SentencePiece model has a begin piece, but no file tells that it is used
        // As `export` writes it: the begin token is the end token of the document before.
        {R"({"add_bos_token": true, "bos_token": "</s>", "eos_token": "</s>"})", "", "", -1},
    };
    for (const Case& c : cases) {
        const std::string where = directory(c.tokenizer_config, c.config, c.special);
        for (const std::string& given : {where, where + "/tokenizer.model"}) {
            const GivenTokenizer tokenizer = read_given_tokenizer(given);
            EXPECT_EQ(tokenizer.begin_token, c.begin) << c.tokenizer_config << c.config;
            EXPECT_EQ(tokenizer.end_token, end_id) << c.tokenizer_config << c.config;
            EXPECT_EQ(tokenizer.model, model_);
        }
    }
    folder_.write("tokenizer_config.json", llama_rule);  // does not count beside a model of another name
    EXPECT_EQ(read_given_tokenizer(folder_.write("other.model", model_)).begin_token, -1);
    const auto error_of = [&](const char* rule) {
        const std::string where = directory(rule);
        return message_of<UserError>([&] { read_given_tokenizer(where); });
    };
    EXPECT_CONTAINS(error_of(R"({"add_bos_token": true, "bos_token": "<|begin|>"})"),
                    "\"<|begin|>\", which is not a piece");
    EXPECT_CONTAINS(error_of(R"({"add_bos_token": "yes"})"), "add_bos_token is neither true nor false");
    EXPECT_CONTAINS(error_of("{"), "tokenizer_config.json");
}

TEST_F(BeginToken, test_finding_03_documents_begin_with_it_in_the_stream) {
    const TokenFileInfo info = tokenize(options_with(directory(llama_rule), "x.h5"));
    EXPECT_EQ(info.begin_token, begin_id);
    const TokenFile with(path("x.h5"));
    EXPECT_EQ(with.info().format_version, 2);
    EXPECT_EQ(with.info().begin_token, begin_id);
    EXPECT_EQ(with.info().tokenizer_kind, TokenizerKind::sentencepiece);
    EXPECT_EQ(verify_token_file(path("x.h5")), std::vector<std::string>{});
    TokenizeOptions plain = options_with(directory(llama_rule), "plain.h5");
    plain.begin_token = "none";
    EXPECT_EQ(tokenize(plain).begin_token, -1);
    const TokenFile without(path("plain.h5"));
    for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
        std::vector<std::int32_t> expected;
        bool at_start = true;
        for (const std::int32_t id : all_ids(without, split)) {
            if (at_start) expected.push_back(begin_id);
            expected.push_back(id);
            at_start = id == end_id;
        }
        EXPECT_EQ(all_ids(with, split), expected);
        EXPECT_EQ(documents(with, split), documents(without, split));
    }
    EXPECT_NE(with.info().fingerprint, without.info().fingerprint);
    EXPECT_EQ(with.info().tokenizer_fingerprint, without.info().tokenizer_fingerprint);
    const std::vector<std::string> differences = diff_token_files(path("x.h5"), path("plain.h5"));
    ASSERT_FALSE(differences.empty());
    EXPECT_EQ(differences[0], "begin token: 1 / -1");

    tokenize(options_with(path("x.h5"), "again.h5"));  // the rule of the token file is used
    EXPECT_EQ(diff_token_files(path("x.h5"), path("again.h5")), std::vector<std::string>{});
    EXPECT_EQ(tokenize(options_with(path("plain.h5"), "again.h5")).begin_token, -1);
    TokenizeOptions asked = options_with(path("plain.h5"), "again.h5");
    asked.begin_token = "bos";
    EXPECT_EQ(tokenize(asked).fingerprint, with.info().fingerprint);
    asked.begin_token = "</s>";
    EXPECT_CONTAINS(message_of<UserError>([&] { tokenize(asked); }), "begin_token = </s>");
}

TEST_F(BeginToken, test_finding_03_the_loader_sees_documents_from_their_begin_token_on) {
    tokenize(options_with(directory(llama_rule), "x.h5"));
    const TokenFile file(path("x.h5"));
    constexpr std::int64_t seq_len = 64;
    const TokenLoader loader(file, seq_len, 0, true);
    Batch batch;
    loader.validation_batch(0, 1, batch);
    const std::vector<std::int32_t> ids = all_ids(file, TokenSplit::validation);
    ASSERT_GT(ids.size(), std::size_t{seq_len});
    int starts = 0;
    for (std::size_t t = 0; t < seq_len; ++t) {
        const auto first = static_cast<std::size_t>(batch.first_key[t]);
        EXPECT_EQ(batch.tokens[t], ids[t]);
        EXPECT_EQ(batch.tokens[first], begin_id) << t;  // each document sees its own begin token
        EXPECT_EQ(file.document_start(TokenSplit::validation, static_cast<std::int64_t>(t)),
                  batch.first_key[t]);
        starts += first == t;
    }
    EXPECT_GT(starts, 1);
}

TEST_F(BeginToken, SourcesAreATable) {
    TokenizeOptions options = options_with(path("trained.h5"), "x.h5");
    options.inputs = {folder_.write("one.txt", "ka lo\n\nmi\n\nten"), folder_.write("two.txt", "\n\n"),
                      folder_.write("three.txt", "sur ran")};
    const std::vector<TokenSource> expected{
        {path("one.txt"), 1, 3}, {path("two.txt"), 1, 0}, {path("three.txt"), 1, 1}};
    EXPECT_EQ(tokenize(options).sources, expected);
    EXPECT_EQ(TokenFile(path("x.h5")).info().sources, expected);
    EXPECT_EQ(verify_token_file(path("x.h5")), std::vector<std::string>{});
}

/// Calls `work` with the root group of a file that is open for writing.
template <class Work>
void change(const std::string& path, Work work) {
    const hdf5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose, "H5Fopen");
    const hdf5::Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    work(hid_t{root});
}

void set(hid_t root, const char* name, std::int64_t value) {
    SWITCHYARD_HDF5(H5Adelete(root, name));
    token_format::write_attribute(root, name, value);
}

TEST_F(BeginToken, FilesOfVersion1AreReadAsBefore) {
    const TokenFileInfo now = tokenize(options_with(path("trained.h5"), "x.h5"));
    change(path("x.h5"), [](hid_t root) {
        set(root, "format_version", 1);
        for (const char* name : {"begin_token", "tokenizer_kind"}) SWITCHYARD_HDF5(H5Adelete(root, name));
        SWITCHYARD_HDF5(H5Ldelete(root, "sources", H5P_DEFAULT));
    });
    const TokenFile old(path("x.h5"));
    EXPECT_EQ(old.info().format_version, 1);
    EXPECT_EQ(old.info().begin_token, -1);
    EXPECT_EQ(old.info().end_token, end_id);
    EXPECT_EQ(old.info().tokenizer_kind, TokenizerKind::sentencepiece);
    EXPECT_EQ(old.info().fingerprint, now.fingerprint);  // runs can go on with a file that is made again
    EXPECT_EQ(old.info().tokenizer_fingerprint, now.tokenizer_fingerprint);
    EXPECT_TRUE(old.info().sources.empty());
    EXPECT_EQ(verify_token_file(path("x.h5")), std::vector<std::string>{});
    tokenize(options_with(path("x.h5"), "y.h5"));
    EXPECT_EQ(diff_token_files(path("x.h5"), path("y.h5")), std::vector<std::string>{});
}

TEST_F(BeginToken, AttributesThatCannotBeAreNamed) {
    const auto error_after = [&](auto work) {
        tokenize(options_with(directory(llama_rule), "x.h5"));
        change(path("x.h5"), work);
        EXPECT_FALSE(verify_token_file(path("x.h5")).empty());
        return message_of<UserError>([&] { TokenFile file(path("x.h5")); });
    };
    EXPECT_CONTAINS(error_after([](hid_t root) { set(root, "format_version", 3); }), "format version 3");
    for (const char* name : {"begin_token", "end_token"}) {
        for (const std::int64_t value : {std::int64_t{1} << 32 | 2, std::int64_t{-2}})
            EXPECT_CONTAINS(error_after([&](hid_t root) { set(root, name, value); }),
                            "attribute " + std::string(name) + " is " + std::to_string(value));
        EXPECT_CONTAINS(error_after([&](hid_t root) { set(root, name, 400); }),
                        std::string("attribute ") + name + " is 400 (it must be from");
    }
    EXPECT_CONTAINS(error_after([](hid_t root) { set(root, "begin_token", end_id); }), "begin token 2");
    EXPECT_CONTAINS(error_after([](hid_t root) {
                        SWITCHYARD_HDF5(H5Adelete(root, "tokenizer_kind"));
                        token_format::write_attribute(root, "tokenizer_kind", std::string("none"));
                    }),
                    "`tokenizer_kind` is none");
    EXPECT_CONTAINS(error_after([](hid_t root) {
                        SWITCHYARD_HDF5(H5Ldelete(root, "sources", H5P_DEFAULT));
                        token_format::write_sources(root, {{"a", 1, -1}});
                    }),
                    "row 0 has weight 1 and -1 documents");
    EXPECT_CONTAINS(error_after([](hid_t root) {
                        const hdf5::Handle table(H5Dopen2(root, "sources", H5P_DEFAULT), H5Dclose,
                                                 "H5Dopen2");
                        SWITCHYARD_HDF5(H5Adelete(table, "checksum"));
                        token_format::write_attribute(table, "checksum", std::uint64_t{1});
                    }),
                    "/sources does not fit its checksum");
}

TEST_F(BeginToken, VerifyFindsDocumentsWithoutTheirBeginToken) {
    tokenize(options_with(path("trained.h5"), "x.h5"));
    change(path("x.h5"), [](hid_t root) { set(root, "begin_token", begin_id); });
    const std::vector<std::string> problems = verify_token_file(path("x.h5"));
    ASSERT_EQ(problems.size(), 2u);
    EXPECT_CONTAINS(problems[0], "documents do not start with the begin token 1, the first at position 0");
    change(path("x.h5"), [](hid_t root) {
        set(root, "begin_token", -1);
        SWITCHYARD_HDF5(H5Ldelete(root, "sources", H5P_DEFAULT));
        token_format::write_sources(root, {{"a", 1, 7}});
    });
    EXPECT_EQ(verify_token_file(path("x.h5")),
              std::vector<std::string>{"/sources: 7 documents, but the file has 60"});
}

TEST_F(BeginToken, TokenizersOfOtherKindsTrainButDoNotSpeak) {
    for (const auto& [kind, bytes] :
         {std::pair{TokenizerKind::hf_json, "{}"}, std::pair{TokenizerKind::none, ""}}) {
        {
            TokenFileWriter writer(path("x.h5"), {.vocab_size = 90000,
                                                  .begin_token = 88888,
                                                  .end_token = 77777,
                                                  .tokenizer_fingerprint = 5,
                                                  .tokenizer_kind = kind,
                                                  .tokenizer_model = bytes});
            for (int d = 0; d < 9; ++d) {
                writer.start_document(TokenSplit::training);
                writer.append(TokenSplit::training, {d, 70000 + d}, 0);
                writer.end_document(TokenSplit::training);
            }
            writer.commit(0, 0, {{"elsewhere", 0.5, 9}});
        }
        const TokenFile file(path("x.h5"));
        EXPECT_EQ(file.info().tokenizer_kind, kind);
        EXPECT_EQ(file.info().tokenizer_fingerprint == 5, kind == TokenizerKind::none);
        Batch batch;
        TokenLoader(file, 7, 0, false).training_batch(0, 4, batch);
        EXPECT_EQ(verify_token_file(path("x.h5")), std::vector<std::string>{});
        const std::string named = std::string("tokenizer of kind ") + name_of(kind);
        EXPECT_CONTAINS(message_of<UserError>([&] { tokenizer_of(file); }), named);
        EXPECT_CONTAINS(message_of<UserError>([&] { tokenize(options_with(path("x.h5"), "y.h5")); }), named);
    }
}

}  // namespace
}  // namespace switchyard

// Token files: every form of input comes back, damage of every kind is named, and verify finds flipped bytes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "core/error.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/token_file_writer.hpp"
#include "io/tokens/token_format.hpp"
#include "support/sentencepiece_models.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using test::all_ids;
using test::documents;
using test::message_of;
using test::quiet_options;
using test::sample_text;
using test::TemporaryDirectory;

template <class Action>
std::string user_error(Action action) {
    return message_of<UserError>(action);
}

/// The documents of both splits, sorted, which are the documents of the input.
std::vector<std::string> all_documents(const std::string& path) {
    const TokenFile file(path);
    auto texts = documents(file, TokenSplit::training);
    const auto validation = documents(file, TokenSplit::validation);
    texts.insert(texts.end(), validation.begin(), validation.end());
    std::sort(texts.begin(), texts.end());
    return texts;
}

std::vector<std::string> split_at(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    for (std::size_t end; (end = text.find(separator, begin)) != std::string::npos;
         begin = end + separator.size()) {
        parts.push_back(text.substr(begin, end - begin));
    }
    parts.push_back(text.substr(begin));
    return parts;
}

std::vector<std::string> sorted(std::vector<std::string> values) {
    std::sort(values.begin(), values.end());
    return values;
}

TEST(TokenFileTest, DocumentsRoundTripAndTheFileVerifies) {
    const TemporaryDirectory folder;
    const std::string text = sample_text(300, 1), output = folder.file("t.h5");
    const TokenFileInfo written = tokenize(quiet_options(folder.write("a.txt", text), output));
    EXPECT_FALSE(folder.has("t.h5.partial"));
    EXPECT_EQ(all_documents(output), sorted(split_at(text.substr(0, text.size() - 1), "\n\n")));

    const TokenFile file(output);
    const TokenFileInfo& info = file.info();
    EXPECT_EQ(info.vocab_size, 400);
    EXPECT_EQ(info.end_token, 2);
    EXPECT_EQ(info.num_documents + info.num_validation_documents, 300);
    EXPECT_EQ(info.num_tokens, written.num_tokens);
    EXPECT_EQ(info.num_validation_tokens, written.num_validation_tokens);
    EXPECT_EQ(info.fingerprint, written.fingerprint);
    EXPECT_EQ(info.tokenizer_fingerprint, written.tokenizer_fingerprint);
    EXPECT_EQ(info.tokenizer_model, written.tokenizer_model);
    EXPECT_EQ(file.path(), output);
    EXPECT_TRUE(is_token_file(output));
    EXPECT_EQ(verify_token_file(output), std::vector<std::string>{});
}

TEST(TokenFileTest, ChecksumsAreTheDocumentedSums) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    tokenize(quiet_options(folder.write("a.txt", sample_text(100, 2)), output));
    const auto ids = all_ids(TokenFile(output), TokenSplit::training);
    std::uint64_t expected = 0;
    for (std::uint64_t i = 0; i < ids.size(); ++i) {
        expected += mix64(i * 0x9E3779B97F4A7C15ull + static_cast<std::uint64_t>(ids[i]));
    }
    const hdf5::Handle file(H5Fopen(output.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "H5Fopen");
    const hdf5::Handle tokens(H5Dopen2(file, "/training/tokens", H5P_DEFAULT), H5Dclose, "H5Dopen2");
    EXPECT_EQ(hdf5::word_attribute(tokens, "checksum"), expected);
    const hdf5::Handle type(H5Dget_type(tokens), H5Tclose, "H5Dget_type");
    EXPECT_GT(H5Tequal(type, H5T_STD_U16LE), 0);
}

TEST(TokenFileTest, DocumentStartsAreThePositionsAfterEndTokens) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    TokenizeOptions options = quiet_options(folder.write("a.txt", sample_text(40, 3)), output);
    options.validation = 0.4;
    tokenize(options);
    const TokenFile file(output);
    for (TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
        const auto ids = all_ids(file, split);
        std::int64_t start = 0;
        for (std::int64_t p = 0; p < static_cast<std::int64_t>(ids.size()); ++p) {
            ASSERT_EQ(file.document_start(split, p), start) << p;
            if (ids[static_cast<std::size_t>(p)] == 2) start = p + 1;
        }
    }
}

TEST(TokenFileTest, DocumentStartIsFoundAmongManyDocuments) {
    const TemporaryDirectory folder;
    std::string text;
    const int num_lines = 70000;  // several search blocks of boundaries
    for (int i = 0; i < num_lines; ++i) text += "abc" + std::to_string(i % 10) + "\n";
    TokenizeOptions options = quiet_options(folder.write("a.txt", text), folder.file("t.h5"));
    options.document_separator = "line";
    options.vocab_size = 275;
    options.validation = 0;
    tokenize(options);
    const TokenFile file(options.output);
    ASSERT_EQ(file.info().num_documents, num_lines);
    const auto ids = all_ids(file, TokenSplit::training);
    std::int64_t start = 0;
    for (std::int64_t p = 0; p < static_cast<std::int64_t>(ids.size()); ++p) {
        if (p % 997 == 0 || p + 1 == static_cast<std::int64_t>(ids.size())) {
            ASSERT_EQ(file.document_start(TokenSplit::training, p), start);
        }
        if (ids[static_cast<std::size_t>(p)] == 2) start = p + 1;
    }
    EXPECT_EQ(verify_token_file(options.output), std::vector<std::string>{});
}

TEST(TokenFileTest, ThreadsDoNotChangeTheFile) {
    const TemporaryDirectory folder;
    const std::string input = folder.write("a.txt", sample_text(500, 4));
    TokenizeOptions options = quiet_options(input, folder.file("one.h5"));
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto one = tokenize(options);
    omp_set_num_threads(4);
    options.output = folder.file("four.h5");
    const auto four = tokenize(options);
    omp_set_num_threads(threads);
    EXPECT_EQ(one.fingerprint, four.fingerprint);
    EXPECT_EQ(one.tokenizer_fingerprint, four.tokenizer_fingerprint);
}

TEST(TokenFileTest, FingerprintDependsOnOrderAndBoundaries) {
    const TemporaryDirectory folder;
    const std::string a = "ka lo mi ten", b = "sur ran vel do";
    const std::string trained = folder.file("tok.h5");
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 5)), trained));
    const auto print = [&](const std::string& text) {
        TokenizeOptions options = quiet_options(folder.write("x.txt", text), folder.file("x.h5"));
        options.tokenizer = trained;
        options.vocab_size = 0;
        options.validation = 0;
        return tokenize(options).fingerprint;
    };
    const auto ab = print(a + "\n\n" + b);
    EXPECT_EQ(ab, print(a + "\n\n\n" + b + "\n\n"));
    EXPECT_NE(ab, print(b + "\n\n" + a));
    EXPECT_NE(ab, print(a + "\n" + b));
}

TEST(TokenFileTest, SeparatorsOfPlainText) {
    const TemporaryDirectory folder;
    const std::string corpus = folder.file("tok.h5");
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 6)), corpus));
    TokenizeOptions options = quiet_options("", folder.file("x.h5"));
    options.inputs = {folder.write("one.txt", "\xEF\xBB\xBFka  lo\r\n\tmi\n\n \nten\n\n"),
                      folder.write("two.txt", "sur")};
    options.tokenizer = corpus;
    options.vocab_size = 0;
    using Texts = std::vector<std::string>;
    options.document_separator = "file";
    tokenize(options);
    EXPECT_EQ(all_documents(options.output), (Texts{"ka  lo\n\tmi\n\n \nten", "sur"}));
    options.document_separator = "blank-lines";
    tokenize(options);
    EXPECT_EQ(all_documents(options.output), (Texts{"ka  lo\n\tmi", "sur", "ten"}));
    options.document_separator = "line";
    tokenize(options);
    EXPECT_EQ(all_documents(options.output), (Texts{"\tmi", "ka  lo", "sur", "ten"}));
    options.document_separator = "word";
    EXPECT_CONTAINS(user_error([&] { tokenize(options); }), "unknown document separator `word`");
}

TEST(TokenFileTest, JsonLinesWithEscapes) {
    const TemporaryDirectory folder;
    const std::string lines =
        "{\"text\": \"ka \\\"lo\\\" \\u00e9 \\ud83d\\ude00\\nmi\", \"id\": 1}\n"
        "\n"
        "{\"id\": 2, \"text\": \"ten\\ttab\"}\r\n"
        "{\"text\": \"  \"}\n"
        "{\"text\": \"last\"}";
    TokenizeOptions options = quiet_options(folder.write("a.jsonl", lines), folder.file("x.h5"));
    options.vocab_size = 290;
    tokenize(options);
    EXPECT_EQ(all_documents(options.output),
              sorted({"ka \"lo\" \xC3\xA9 \xF0\x9F\x98\x80\nmi", "ten\ttab", "last"}));
}

TEST(TokenFileTest, BadJsonLineIsNamedAndLeavesNothing) {
    const TemporaryDirectory folder;
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 7)), folder.file("tok.h5")));
    for (const char* bad : {"{\"text\": \"open", "{\"body\": \"x\"}", "{\"text\": 3}", "[1]", "no json"}) {
        const std::string input =
            folder.write("bad.jsonl", std::string("{\"text\": \"good\"}\n\n") + bad + "\n");
        TokenizeOptions options = quiet_options(input, folder.file("x.h5"));
        options.tokenizer = folder.file("tok.h5");
        options.vocab_size = 0;
        const std::string message = user_error([&] { tokenize(options); });
        EXPECT_CONTAINS(message, "bad.jsonl` line 3") << bad;
        EXPECT_FALSE(folder.has("x.h5"));
        EXPECT_FALSE(folder.has("x.h5.partial"));
    }
}

TEST(TokenFileTest, TwoWritersOfOneFileDoNotMix) {
    const TemporaryDirectory folder;
    const std::string path = folder.file("x.h5"), partial = path + ".partial";
    const TokenFileInfo info{
        .vocab_size = 9, .begin_token = -1, .end_token = 2, .tokenizer_kind = TokenizerKind::none};
    const auto fill = [](TokenFileWriter& writer) {
        writer.start_document(TokenSplit::training);
        writer.append(TokenSplit::training, {3, 4}, 0);
        writer.end_document(TokenSplit::training);
    };
    {
        TokenFileWriter first(path, info);
        fill(first);
        EXPECT_CONTAINS(user_error([&] { TokenFileWriter(path, info); }), "written by another process");
        EXPECT_TRUE(folder.has("x.h5.partial"));
        first.commit(0, 0);
    }
    EXPECT_TRUE(verify_token_file(path).empty());
    {
        TokenFileWriter first(path, info);
        fill(first);
        std::filesystem::remove(partial);
        folder.write("x.h5.partial", "of another process on a file system without locks");
        EXPECT_CONTAINS(user_error([&] { first.commit(0, 0); }), "was replaced or removed");
    }
    EXPECT_TRUE(folder.has("x.h5.partial"));
    EXPECT_TRUE(verify_token_file(path).empty());
}

TEST(TokenFileTest, InvalidBytesAreReplacedAndCounted) {
    const TemporaryDirectory folder;
    std::string text = "ka lo\nmi \xFF\xC3 ten \xE2\x82 sur \xED\xA0\x80 \xC3\xA9\n\nran vel";
    TokenizeOptions options = quiet_options(folder.write("a.txt", text), folder.file("x.h5"));
    options.vocab_size = 285;
    ::testing::internal::CaptureStderr();
    tokenize(options);
    const std::string output = ::testing::internal::GetCapturedStderr();
    EXPECT_CONTAINS(output, "7 bytes are not valid UTF-8");
    EXPECT_CONTAINS(output, "a.txt` line 2");
    const std::string r = "\xEF\xBF\xBD";
    EXPECT_EQ(
        all_documents(options.output),
        sorted({"ka lo\nmi " + r + r + " ten " + r + r + " sur " + r + r + r + " \xC3\xA9", "ran vel"}));
}

/// Runs `action` with `text` on standard input, from a pipe.
template <class Action>
void with_standard_input(const std::string& text, Action action) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const int saved = ::dup(STDIN_FILENO);
    const pid_t writer = ::fork();
    if (writer == 0) {
        ::close(ends[0]);
        std::size_t done = 0;
        while (done < text.size()) {
            const ssize_t count = ::write(ends[1], text.data() + done, text.size() - done);
            if (count <= 0) _exit(1);
            done += static_cast<std::size_t>(count);
        }
        _exit(0);
    }
    ::dup2(ends[0], STDIN_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    action();
    ::dup2(saved, STDIN_FILENO);
    ::close(saved);
    int status = 0;
    ::waitpid(writer, &status, 0);
}

TEST(TokenFileTest, StandardInputGivesTheSameFile) {
    const TemporaryDirectory folder;
    const std::string text = sample_text(400, 8);
    TokenizeOptions options = quiet_options(folder.write("a.txt", text), folder.file("a.h5"));
    const auto from_file = tokenize(options);
    options.inputs = {"-"};
    options.output = folder.file("b.h5");
    TokenFileInfo from_stream;
    // Trains a tokenizer, so the stream is copied first.
    with_standard_input(text, [&] { from_stream = tokenize(options); });
    EXPECT_EQ(from_stream.fingerprint, from_file.fingerprint);
    EXPECT_EQ(from_stream.tokenizer_fingerprint, from_file.tokenizer_fingerprint);
    options.tokenizer = folder.file("a.h5");
    options.vocab_size = 0;
    with_standard_input(text, [&] { from_stream = tokenize(options); });
    EXPECT_EQ(from_stream.fingerprint, from_file.fingerprint);
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        EXPECT_EQ(entry.path().string().find("spool"), std::string::npos) << entry.path();
    }
}

TEST(TokenFileTest, StandardInputMayBeJsonLines) {
    const TemporaryDirectory folder;
    const std::string lines = "{\"text\": \"ka lo mi\"}\n{\"text\": \"ten\\nsur ran\"}\n";
    TokenizeOptions options = quiet_options("-", folder.file("x.h5"));
    options.vocab_size = 273;
    with_standard_input(lines, [&] { tokenize(options); });
    EXPECT_EQ(all_documents(options.output), (std::vector<std::string>{"ka lo mi", "ten\nsur ran"}));
    const auto model = TokenFile(options.output).info().tokenizer_model;
    // The tokenizer was trained on the text, not on the JSON around it.
    for (const char* json : {"\"", "{", "text"}) {
        const auto ids = Tokenizer(model).encode(json);
        EXPECT_GE(ids.size(), std::string(json).size()) << json;
    }
}

TEST(TokenFileTest, LongDocumentsAreCutWithoutATrace) {
    const TemporaryDirectory folder;
    std::string text = sample_text(6000, 9);  // one document of 700 kB: many segments
    std::string unbroken;
    for (std::size_t at = 0; (at = text.find("\n\n", at)) != std::string::npos; at += 2) {
        text.replace(at, 2, at % 3 == 0 ? "\n" : at % 3 == 1 ? "\n \n" : "\n\n\n");
    }
    text.pop_back();
    unbroken = text;
    std::replace(unbroken.begin(), unbroken.end(), '\n', ' ');
    const std::string trained = folder.file("tok.h5");
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 10)), trained));
    for (const std::string& document : {text, unbroken}) {
        TokenizeOptions options = quiet_options(folder.write("x.txt", document + "\n"), folder.file("x.h5"));
        options.tokenizer = trained;
        options.vocab_size = 0;
        options.validation = 0;
        options.document_separator = "file";
        tokenize(options);
        const TokenFile file(options.output);
        auto whole = Tokenizer(file.info().tokenizer_model).encode(document);
        whole.push_back(file.info().end_token);
        ASSERT_EQ(file.info().num_documents, 1);
        EXPECT_TRUE(all_ids(file, TokenSplit::training) == whole);  // as if encoded in one piece
    }
}

TEST(TokenFileTest, TextWithoutSpacesKeepsItsCharacters) {
    const TemporaryDirectory folder;
    std::string text;
    while (text.size() < (1u << 20)) text += "\xC3\xA9\xF0\x9F\x98\x80kal";
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 10)), folder.file("tok.h5")));
    TokenizeOptions options = quiet_options(folder.write("x.txt", text), folder.file("x.h5"));
    options.tokenizer = folder.file("tok.h5");
    options.vocab_size = 0;
    options.validation = 0;
    tokenize(options);
    std::string decoded = documents(TokenFile(options.output), TokenSplit::training).at(0);
    decoded.erase(std::remove(decoded.begin(), decoded.end(), ' '), decoded.end());
    EXPECT_TRUE(decoded == text);
}

TEST(TokenFileTest, ValidationSplitIsKeyedAndNeverEmpty) {
    const TemporaryDirectory folder;
    TokenizeOptions options =
        quiet_options(folder.write("a.txt", sample_text(2000, 11)), folder.file("x.h5"));
    options.validation = 0.25;
    tokenize(options);
    options.tokenizer = folder.write("m.model", TokenFile(options.output).info().tokenizer_model);
    options.vocab_size = 0;
    const auto first = tokenize(options);
    // Binomial distribution: 500 documents expected, standard deviation 19.4; five deviations.
    EXPECT_NEAR(static_cast<double>(first.num_validation_documents), 500, 97);
    options.seed = 1;
    EXPECT_NE(tokenize(options).fingerprint, first.fingerprint);
    for (const double share : {1e-9, 1 - 1e-9}) {
        options.validation = share;
        const auto info = tokenize(options);
        EXPECT_EQ(std::min(info.num_documents, info.num_validation_documents), 1) << share;
        EXPECT_EQ(info.num_documents + info.num_validation_documents, 2000);
        EXPECT_EQ(verify_token_file(options.output), std::vector<std::string>{});
        EXPECT_EQ(all_documents(options.output).size(), 2000u);
    }
    options.validation = 0;
    EXPECT_EQ(tokenize(options).num_validation_documents, 0);
    EXPECT_EQ(verify_token_file(options.output), std::vector<std::string>{});
    options.validation = 0.01;
    options.document_separator = "file";
    EXPECT_CONTAINS(user_error([&] { tokenize(options); }), "one document only");
}

/// A word model made by SentencePiece: no byte fallback, normalizing, and with or without an end piece.
std::string word_model(int num_words, const char* end_id) {
    std::vector<std::string> words;
    for (int i = 0; i < num_words; ++i) words.push_back("w" + std::to_string(i));
    return test::sentencepiece_model(words, {{"model_type", "word"},
                                             {"vocab_size", std::to_string(num_words + 3)},
                                             {"use_all_vocab", "true"},
                                             {"eos_id", end_id}});
}

TEST(TokenFileTest, AGivenModelWithIdsBeyond65536) {
    const TemporaryDirectory folder;
    std::filesystem::create_directory(folder.file("model"));
    folder.write("model/spiece.model", word_model(70000, "2"));
    TokenizeOptions options =
        quiet_options(folder.write("a.txt", "w69999 w1\n\nw3  w69998\nnever w5"), folder.file("x.h5"));
    options.vocab_size = 0;
    options.tokenizer = folder.file("model");
    ::testing::internal::CaptureStderr();
    const auto info = tokenize(options);
    EXPECT_CONTAINS(::testing::internal::GetCapturedStderr(), "1 of 8 tokens are the unknown piece");
    EXPECT_GT(info.vocab_size, 70000);
    const TokenFile file(options.output);
    const auto ids = all_ids(file, TokenSplit::training);
    EXPECT_GT(*std::max_element(ids.begin(), ids.end()), 65535);
    EXPECT_EQ(all_documents(options.output),
              (std::vector<std::string>{"w3 w69998 \xE2\x81\x87  w5", "w69999 w1"}));
    EXPECT_EQ(verify_token_file(options.output), std::vector<std::string>{});

    options.tokenizer = folder.write("no_end.model", word_model(100, "-1"));
    EXPECT_CONTAINS(user_error([&] { tokenize(options); }), "no_end.model`: it has no end token");
}

TEST(TokenFileTest, BadInputsAndOptions) {
    const TemporaryDirectory folder;
    const std::string good = folder.write("a.txt", sample_text(100, 12));
    TokenizeOptions options = quiet_options(good, folder.file("x.h5"));
    const auto error_of = [&](auto change) {
        TokenizeOptions changed = options;
        change(changed);
        return user_error([&] { tokenize(changed); });
    };
    using O = TokenizeOptions;
    EXPECT_CONTAINS(error_of([](O& o) { o.inputs = {}; }), "no input");
    EXPECT_CONTAINS(error_of([](O& o) { o.inputs = {"/nowhere/x.txt"}; }), "/nowhere/x.txt");
    EXPECT_CONTAINS(error_of([&](O& o) { o.inputs = {folder.path()}; }), "is a folder");
    EXPECT_CONTAINS(error_of([](O& o) { o.output = "/nowhere/x.h5"; }), "`/nowhere` does not exist");
    EXPECT_CONTAINS(error_of([&](O& o) { o.output = good; }), "both input and output");
    EXPECT_CONTAINS(error_of([](O& o) { o.validation = 1; }), "validation = 1");
    EXPECT_CONTAINS(error_of([](O& o) { o.vocab_size = 0; }), "--vocab_size");
    EXPECT_CONTAINS(error_of([](O& o) { o.vocab_size = 100; }), "too small");
    EXPECT_CONTAINS(error_of([](O& o) { o.vocab_size = 265; }), "too small for this text");
    EXPECT_CONTAINS(error_of([](O& o) { o.vocab_size = 100000; }),
                    "too large for this text (it gives at most");
    EXPECT_CONTAINS(error_of([&](O& o) { o.inputs = {folder.write("a.gz", "\x1F\x8B\x08")}; }), "compressed");
    EXPECT_CONTAINS(error_of([&](O& o) { o.inputs = {folder.write("b", "\xFF\xFEk")}; }), "UTF-16");
    EXPECT_CONTAINS(error_of([&](O& o) { o.inputs = {folder.write("c.txt", " \n\n")}; }), "no text");
    EXPECT_CONTAINS(error_of([&](O& o) { o.tokenizer = good; }), "not a SentencePiece model");
    EXPECT_CONTAINS(error_of([&](O& o) { o.tokenizer = folder.path(); }), "spiece.model");
    EXPECT_CONTAINS(error_of([](O& o) { o.tokenizer = "/nowhere/m"; }), "/nowhere/m");
    tokenize(options);
    EXPECT_CONTAINS(error_of([&](O& o) { o.tokenizer = o.output; }), "both tokenizer and output");
    options.output = folder.file("y.h5");
    EXPECT_CONTAINS(error_of([&](O& o) { o.tokenizer = folder.file("x.h5"), o.vocab_size = 500; }), "500");
}

TEST(TokenFileTest, DiskFullLeavesTheOldFile) {
    const TemporaryDirectory folder;
    TokenizeOptions options =
        quiet_options(folder.write("a.txt", sample_text(20000, 13)), folder.file("x.h5"));
    options.validation = 0;
    folder.write("x.h5", "old");
    tokenize(quiet_options(folder.write("train.txt", sample_text(50, 10)), folder.file("tok.h5")));
    options.tokenizer = folder.file("tok.h5");
    options.vocab_size = 0;
    const pid_t child = ::fork();
    if (child == 0) {
        omp_set_num_threads(1);
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{300000, 300000};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const std::string message = user_error([&] { tokenize(options); });
        const bool good = message.find("cannot write the token file") != std::string::npos;
        ::_exit(good && !folder.has("x.h5.partial") ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT_EQ(folder.read("x.h5"), "old");
}

TEST(TokenFileTest, MissingTruncatedAndForeignFilesAreNamed) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    tokenize(quiet_options(folder.write("a.txt", sample_text(2000, 14)), output));
    EXPECT_CONTAINS(user_error([&] { TokenFile(folder.file("no.h5")); }), "does not exist");
    const std::string bytes = folder.read("t.h5");
    for (const double part : {0.0, 0.001, 0.3, 0.9}) {
        const std::string cut = folder.write(
            "cut.h5", bytes.substr(0, static_cast<std::size_t>(part * static_cast<double>(bytes.size()))));
        const std::string message = user_error([&] { TokenFile file(cut); });
        EXPECT_CONTAINS(message, "cut.h5") << part;
        EXPECT_CONTAINS(message, "truncated") << part;
        EXPECT_FALSE(verify_token_file(cut).empty());
        EXPECT_FALSE(is_token_file(cut));
    }
    const std::string foreign = folder.file("foreign.h5");
    {
        const hdf5::Handle file(H5Fcreate(foreign.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose,
                                "H5Fcreate");
    }
    EXPECT_CONTAINS(user_error([&] { TokenFile file(foreign); }), "not an intact token file");
    EXPECT_FALSE(is_token_file(foreign));
    EXPECT_FALSE(is_token_file(folder.path()));
    EXPECT_FALSE(is_token_file(folder.file("a.txt")));
    EXPECT_CONTAINS(user_error([&] { TokenFile file(folder.path()); }), "not a regular file but a folder");
}

/// Overwrites one element, as a program might that knows HDF5 but not our rules.
template <class T>
void overwrite(const std::string& path, const char* dataset, hid_t type, hsize_t position, T value) {
    const hdf5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose, "H5Fopen");
    const hdf5::Handle data(H5Dopen2(file, dataset, H5P_DEFAULT), H5Dclose, "H5Dopen2");
    const hdf5::Handle space(H5Dget_space(data), H5Sclose, "H5Dget_space");
    const hsize_t one = 1;
    SWITCHYARD_HDF5(H5Sselect_hyperslab(space, H5S_SELECT_SET, &position, nullptr, &one, nullptr));
    const hdf5::Handle memory(H5Screate_simple(1, &one, nullptr), H5Sclose, "H5Screate_simple");
    SWITCHYARD_HDF5(H5Dwrite(data, type, memory, space, H5P_DEFAULT, &value));
}

TEST(TokenFileTest, IdOutsideTheVocabularyIsNamedWithItsPosition) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    tokenize(quiet_options(folder.write("a.txt", sample_text(100, 15)), output));
    overwrite(output, "/training/tokens", H5T_NATIVE_UINT16, 123, std::uint16_t{400});
    const TokenFile file(output);
    std::vector<std::int32_t> ids(50);
    file.read(TokenSplit::training, 73, 50, ids.data());
    const std::string message = user_error([&] { file.read(TokenSplit::training, 74, 50, ids.data()); });
    EXPECT_CONTAINS(message, "training token 123 has id 400");
    EXPECT_CONTAINS(message, "vocabulary of 400");
    const auto problems = verify_token_file(output);
    ASSERT_EQ(problems.size(), 2u);
    EXPECT_CONTAINS(problems[0], "/training/tokens: checksum");
    EXPECT_CONTAINS(problems[1], "first at position 123");
}

TEST(TokenFileTest, VerifyFindsChangedValuesAndBoundaries) {
    const TemporaryDirectory folder;
    const auto problems_after = [&](const char* dataset, auto value) {
        const std::string output = folder.file("t.h5");
        tokenize(quiet_options(folder.write("a.txt", sample_text(100, 16)), output));
        const hid_t type = sizeof value == 8 ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT16;
        overwrite(output, dataset, type, 5, value);
        std::string text;
        for (const std::string& problem : verify_token_file(output)) text += problem + "\n";
        return text;
    };
    EXPECT_CONTAINS(problems_after("/validation/tokens", std::uint16_t{7}), "/validation/tokens: checksum");
    EXPECT_CONTAINS(problems_after("/training/tokens", std::uint16_t{2}), "do not fit, first at position 6");
    const std::string starts = problems_after("/training/document_starts", std::int64_t{1});
    EXPECT_CONTAINS(starts, "/training/document_starts: checksum");
    EXPECT_CONTAINS(starts, "do not fit");
}

TEST(TokenFileTest, EveryFlippedByteOfDataIsFound) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    tokenize(quiet_options(folder.write("a.txt", sample_text(400, 17)), output));
    const std::string bytes = folder.read("t.h5");
    const TokenFile original(output);
    const auto training = all_ids(original, TokenSplit::training);
    const auto validation = all_ids(original, TokenSplit::validation);
    int found = 0, harmless = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 1 + mix64(at) % (bytes.size() / 300)) {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << (mix64(at) >> 60) % 8));
        const std::string path = folder.write("damaged.h5", damaged);
        if (!verify_token_file(path).empty()) {
            ++found;
            continue;
        }
        // If it is not found, it is in an unused gap and changes nothing that can be read.
        ++harmless;
        const TokenFile file(path);
        EXPECT_EQ(file.info().fingerprint, original.info().fingerprint) << at;
        EXPECT_EQ(all_ids(file, TokenSplit::training), training) << at;
        EXPECT_EQ(all_ids(file, TokenSplit::validation), validation) << at;
    }
    EXPECT_GT(found, 2 * harmless);
}

TEST(TokenFileTest, FlippedByteIsFoundWhenTheTokenIsRead) {
    const TemporaryDirectory folder;
    const std::string output = folder.file("t.h5");
    tokenize(quiet_options(folder.write("a.txt", sample_text(400, 18)), output));
    const auto ids = all_ids(TokenFile(output), TokenSplit::training);
    std::string pattern;
    for (int i = 100; i < 116; ++i) {
        pattern += static_cast<char>(ids[static_cast<std::size_t>(i)] & 255);
        pattern += static_cast<char>(ids[static_cast<std::size_t>(i)] >> 8);
    }
    std::string bytes = folder.read("t.h5");
    const std::size_t at = bytes.find(pattern);
    ASSERT_NE(at, std::string::npos);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);  // stays inside the vocabulary
    const TokenFile file(folder.write("damaged.h5", bytes));
    std::vector<std::int32_t> out(10);
    const std::string message = user_error([&] { file.read(TokenSplit::training, 100, 10, out.data()); });
    EXPECT_CONTAINS(message, "training tokens 100 to 109");
    EXPECT_CONTAINS(message, "damaged.h5");
}

TEST(TokenizerTest, TextComesBackAsItWas) {
    const TemporaryDirectory folder;
    const auto info =
        tokenize(quiet_options(folder.write("a.txt", sample_text(100, 19)), folder.file("t.h5")));
    const Tokenizer tokenizer(info.tokenizer_model);
    EXPECT_EQ(tokenizer.vocab_size(), 400);
    EXPECT_EQ(tokenizer.begin_token(), 1);
    EXPECT_EQ(tokenizer.end_token(), 2);
    EXPECT_EQ(tokenizer.unknown_token(), 0);
    for (const std::string& text :
         {std::string("ka lo"), std::string(" lead"), std::string("trail "), std::string("a  b   c"),
          std::string("\n"), std::string("\n\n  x\ty\r\nz\n"), std::string("   "), std::string(""),
          std::string("caf\xC3\xA9 \xE6\xBC\xA2 \xF0\x9F\x98\x80"),
          std::string("e\xCC\x81 \xEF\xAC\x81 \xC2\xA0|"), std::string("</s> <s> <unk>"),
          std::string("a\0b", 3), std::string("3.14159")}) {
        EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
        for (const std::int32_t id : tokenizer.encode(text)) EXPECT_GT(id, 2);
    }
    EXPECT_CONTAINS(user_error([&] { tokenizer.decode({1, 400}); }), "400");
    EXPECT_CONTAINS(user_error([&] { Tokenizer("garbage"); }), "not a SentencePiece model");
}

}  // namespace
}  // namespace switchyard

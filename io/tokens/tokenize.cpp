// tokenize(): inputs -> segments -> ids, encoded in parallel in batches -> token file. The documents of a
// batch are written in input order, so the file does not depend on the number of threads.
#include "io/tokens/tokenize.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/tokens/input_kind.hpp"
#include "io/tokens/progress_line.hpp"
#include "io/tokens/segment_encoder.hpp"
#include "io/tokens/token_file_writer.hpp"
#include "io/tokens/tokenize_report.hpp"
#include "io/tokens/tokenizer_training.hpp"

namespace switchyard {
namespace {

constexpr std::uint64_t training_sample_bytes = 20 << 20;
constexpr std::size_t batch_bytes = 8 << 20, batch_segments = 16384;

/// Copies a stream to an unlinked file beside the output, which disappears with the process.
TextInput spool(const TextInput& input, const std::string& output, FileDescriptor& file) {
    std::string pattern = output + ".spool.XXXXXX";
    file = FileDescriptor(::mkostemp(pattern.data(), O_CLOEXEC));
    require(file >= 0,
            "cannot create `{}`, to which a stream is copied before a tokenizer is trained from it {}",
            pattern, system_problem);
    ::unlink(pattern.c_str());
    const FileDescriptor source = open_input(input);
    std::vector<char> block(1 << 20);
    TextInput spooled{input.name, fmt::format("/proc/self/fd/{}", int{file}), 0, true};
    std::string head;  // checked first, so that a disk is not filled with what is not text
    for (;;) {
        const ssize_t count = ::read(source, block.data(), block.size());
        if (count < 0 && errno == EINTR) continue;
        require(count >= 0, "cannot read `{}` {}", input.name, system_problem);
        if (count == 0) return spooled;
        if (head.size() < kind_bytes) {
            head.append(block.data(), static_cast<std::size_t>(count));
            refuse_known_kinds(input.name, head);
        }
        write_all(file, {block.data(), static_cast<std::size_t>(count)}, pattern);
        spooled.size += static_cast<std::uint64_t>(count);
    }
}

class Job {
  public:
    explicit Job(const TokenizeOptions& options)
        : options_(options),
          rule_{format_from_name(options.format), options.text_key.value_or("text"), options.skip_bad_lines,
                options.text_key.has_value()},
          inputs_(check_inputs(options.inputs, rule_)) {
        check_options();
        if (options_.tokenizer.empty()) {
            given_.model = train();
        } else {
            given_ = read_given_tokenizer(options_.tokenizer);
        }
    }

    TokenizeResult run();

  private:
    void check_options() const;
    void refuse_tokenizer_as_output() const;
    std::string train();
    Tokenizer load();
    void choose_begin_token(const Tokenizer&);
    TokenSplit split_of(std::int64_t document) const {
        const bool chosen = uniform(key_, static_cast<std::uint64_t>(document)) < options_.validation;
        return chosen ? TokenSplit::validation : TokenSplit::training;
    }
    void write_batch(TokenFileWriter&, const Tokenizer&, const std::vector<TextSegment>&,
                     const CutBehaviour&);
    void balance_splits(TokenFileWriter&) const;

    const TokenizeOptions& options_;
    TextRule rule_;
    std::vector<TextInput> inputs_;
    std::vector<FileDescriptor> spooled_;
    GivenTokenizer given_;
    std::uint64_t key_ = stream_key(options_.seed, "validation documents");
    std::vector<TokenSource> sources_;
    std::int64_t num_unknown_ = 0;
    RoundTrip round_trip_;
};

void Job::check_options() const {
    require(!options_.output.empty(),
            "no output given (the token file is written there); add --output=FILE.h5");
    require(options_.validation >= 0 && options_.validation < 1,
            "validation = {} (it is the share of the documents kept for validation); choose it in [0, 1)",
            options_.validation);
    require(!options_.tokenizer.empty() || options_.vocab_size > 0,
            "neither a tokenizer nor a vocabulary size given (a tokenizer is used as it is or trained); add "
            "--tokenizer=MODEL or --vocab_size=N");
    const std::string folder = directory_of(options_.output);
    require(is_folder_at(folder), "folder `{}` does not exist (the token file is written there); make it",
            folder);
    require(::access(folder.c_str(), W_OK) == 0,
            "folder `{}` cannot be written: {} (the token file goes there); choose another --output", folder,
            system_reason);
    for (const TextInput& input : inputs_) {
        std::error_code error;
        require(!std::filesystem::equivalent(input.path, options_.output, error),
                "`{}` is both input and output (it would be lost); choose another --output", options_.output);
    }
    refuse_tokenizer_as_output();
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(options_.output, error);
    require(!std::filesystem::is_directory(status),
            "output `{}` is a folder (a token file is to be written); name a file in it", options_.output);
    require(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status),
            "output `{}` is a device or pipe (a file would take its place); name a file", options_.output);
    require(options_.overwrite || !std::filesystem::exists(status),
            "output `{}` exists (it would be lost); choose another name, or give --overwrite to replace it",
            options_.output);
    require(!rule_.text_key.empty(),
            "the text key is empty (it names the text in JSON lines); give --text_key=KEY, or leave it out "
            "for \"text\"");
    TextSource({}, rule_, options_.document_separator, {});  // knows the names of the separators
}

void Job::refuse_tokenizer_as_output() const {
    for (const char* name :
         {"", "/tokenizer.model", "/spiece.model", "/tokenizer.json", "/tokenizer_config.json"}) {
        std::error_code error;
        require(options_.tokenizer.empty() ||
                    !std::filesystem::equivalent(options_.tokenizer + name, options_.output, error),
                "`{}` is both tokenizer and output (it would be lost); choose another --output",
                options_.output);
    }
}

std::string Job::train() {
    const ProgressLine progress(options_.show_progress, 0);
    for (TextInput& input : inputs_) {
        if (input.seekable) continue;
        progress.note(fmt::format("copying {} (a tokenizer is to be trained on it)", input.name));
        spooled_.emplace_back();
        input = spool(input, options_.output, spooled_.back());
        LineReader reader(open_input(input), input.name);
        input.format = decide_format(reader, input.name, rule_);
    }
    std::vector<std::string> lines = sample_lines(inputs_, rule_, training_sample_bytes);
    std::uint64_t bytes = 0;
    for (const std::string& line : lines) bytes += line.size() + 1;
    progress.note(fmt::format("training a tokenizer of {} pieces on {:.1f} MB of the text ...",
                              options_.vocab_size, static_cast<double>(bytes) * 1e-6));
    const auto start = std::chrono::steady_clock::now();
    std::string model = train_tokenizer(std::move(lines), options_.vocab_size);
    progress.note(fmt::format("tokenizer trained in {:.1f} s", seconds_since(start)));
    return model;
}

/// A tokenizer trained here and a model file alone do not tell a begin token; documents then have none.
void Job::choose_begin_token(const Tokenizer& tokenizer) {
    const std::string& rule = options_.begin_token;
    require(
        rule == "auto" || rule == "none" || rule == "bos",
        "begin_token = {} (it says what a document begins with); choose auto (as the tokenizer says), none, "
        "or bos (the tokenizer's begin piece)",
        rule);
    if (rule == "none") given_.begin_token = -1;
    if (rule == "bos" && given_.begin_token < 0) given_.begin_token = tokenizer.begin_token();
    require(
        rule != "bos" || given_.begin_token >= 0,
        "it has no begin piece (begin_token = bos puts one before every document); leave begin_token out");
    require(
        given_.begin_token < 0 || given_.begin_token != given_.end_token,
        "its begin and end piece are the same (documents could not be told apart); leave begin_token out");
}

Tokenizer Job::load() {
    const std::string origin =
        options_.tokenizer.empty() ? "the trained tokenizer" : "`" + options_.tokenizer + "`";
    try {
        Tokenizer tokenizer(given_.model);
        if (given_.end_token < 0) given_.end_token = tokenizer.end_token();
        require(given_.end_token >= 0,
                "it has no end token (every document ends with one); give a model with an eos piece such as "
                "</s>");
        require(options_.vocab_size == 0 || options_.vocab_size == tokenizer.vocab_size(),
                "it has {} pieces, but vocab_size = {} was asked for (a given tokenizer is used as it is); "
                "leave vocab_size out, or leave tokenizer out to train one",
                tokenizer.vocab_size(), options_.vocab_size);
        choose_begin_token(tokenizer);
        return tokenizer;
    } catch (const UserError& problem) {
        fail("tokenizer {}: {}", origin, problem.what());
    }
}

void Job::write_batch(TokenFileWriter& writer, const Tokenizer& tokenizer,
                      const std::vector<TextSegment>& batch, const CutBehaviour& cuts) {
    const std::vector<Encoded> encoded = encode_batch(tokenizer, batch, cuts);
    const std::int32_t begin = given_.begin_token, end = given_.end_token;
    const std::int32_t unknown = tokenizer.unknown_token();
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const TokenSplit split = split_of(batch[i].document);
        if (batch[i].starts_document) round_trip_.add(tokenizer, batch[i].text, encoded[i].ids);
        for (const std::int32_t id : encoded[i].ids) {
            num_unknown_ += id == unknown;
            require(id != end,
                    "the tokenizer encodes text as its end token {} (document {}; documents could not be "
                    "told apart); use a model whose end token is a control piece",
                    end, batch[i].document);
            require(begin < 0 || id != begin,
                    "the tokenizer encodes text as its begin token {} (document {}; a document would seem to "
                    "begin there); use a model whose begin token is a control piece, or --begin_token=none",
                    begin, batch[i].document);
        }
        if (batch[i].starts_document) {
            writer.start_document(split);
            ++sources_[batch[i].input].documents;
        }
        writer.append(split, encoded[i].ids, encoded[i].skip);
        if (batch[i].ends_document) writer.end_document(split);
    }
}

/// Moves documents so that each split has at least one; with few documents the hash may leave one empty.
void Job::balance_splits(TokenFileWriter& writer) const {
    const std::int64_t training = writer.num_documents(TokenSplit::training);
    const std::int64_t validation = writer.num_documents(TokenSplit::validation);
    require(training + validation > 0,
            "the inputs hold no text (there is nothing to train on); check the files");
    if (options_.validation == 0 || (training > 0 && validation > 0)) return;
    require(training + validation > 1,
            "the inputs hold one document only (validation = {} wants some of several); choose another "
            "--document_separator (blank-lines, line or file; now {}), or --validation=0 for none",
            options_.validation, options_.document_separator);
    writer.move_last_document(training == 0 ? TokenSplit::validation : TokenSplit::training);
}

TokenizeResult Job::run() {
    const Tokenizer tokenizer = load();
    const CutBehaviour cuts = probe_cuts(tokenizer);
    std::uint64_t total = 0;
    for (const TextInput& input : inputs_) total += input.seekable ? input.size : 0;
    for (const TextInput& input : inputs_) total = input.seekable ? total : 0;
    TextSource source(inputs_, rule_, options_.document_separator, {.drop_space = cuts.drop_space});
    for (const TextInput& input : inputs_) sources_.push_back({input.name});
    TokenFileWriter writer(options_.output, {.vocab_size = tokenizer.vocab_size(),
                                             .begin_token = given_.begin_token,
                                             .end_token = given_.end_token,
                                             .tokenizer_model = given_.model});
    ProgressLine progress(options_.show_progress, total);
    const auto num_tokens = [&] {
        return writer.num_tokens(TokenSplit::training) + writer.num_tokens(TokenSplit::validation);
    };
    std::vector<TextSegment> batch;
    TextSegment segment;
    for (bool more = true; more;) {
        batch.clear();
        std::size_t bytes = 0;
        while (bytes < batch_bytes && batch.size() < batch_segments && (more = source.next(segment))) {
            bytes += segment.text.size();
            batch.push_back(std::move(segment));
        }
        write_batch(writer, tokenizer, batch, cuts);
        progress.update(source.bytes_read(), num_tokens());
    }
    balance_splits(writer);
    TokenizeResult result{writer.commit(options_.validation, options_.seed, std::move(sources_)), {}};
    progress.update(source.bytes_read(), num_tokens(), true);
    const TokenizeFindings found{source, round_trip_, num_unknown_, num_tokens()};
    warn(found);
    result.remarks = remarks(options_, found, given_, tokenizer);
    return result;
}

}  // namespace

TokenizeResult tokenize(const TokenizeOptions& options) {
    return Job(options).run();
}

}  // namespace switchyard

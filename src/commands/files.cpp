// tokenize, inspect, verify, diff: rank 0 works on files.
#include "io/files/files.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/units.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/strict_json.hpp"
#include "io/run/run_directory.hpp"
#include "io/tokens/tokenize.hpp"
#include "run/inputs.hpp"
#include "train/checkpoint_header.hpp"

namespace switchyard {
namespace {

int tokenize_files(const Arguments& arguments) {
    TokenizeOptions options;
    options.inputs = arguments.files;
    options.output = arguments.text("output", "");
    options.tokenizer = arguments.text("tokenizer", "");
    options.vocab_size = arguments.integer("vocab_size", 0, 2, 1 << 30);
    options.begin_token = arguments.text("begin_token", options.begin_token);
    options.format = arguments.text("format", options.format);
    if (arguments.has("text_key")) options.text_key = arguments.text("text_key", "");
    options.skip_bad_lines = arguments.has("skip_bad_lines");
    options.overwrite = arguments.has("overwrite");
    options.validation = arguments.real("validation", options.validation, 0, 1);
    options.document_separator = arguments.text("document_separator", options.document_separator);
    options.seed = static_cast<std::uint64_t>(arguments.integer("seed", 0, 0));
    options.show_progress = !arguments.has("quiet");
    require(!options.inputs.empty(),
            "no text given (there is nothing to tokenize); name text or JSONL files, or -");
    require(!options.output.empty(),
            "--output is missing (the token file needs a name); give --output=FILE.h5");
    require(!options.tokenizer.empty() || options.vocab_size > 0,
            "neither --tokenizer nor --vocab_size given (a tokenizer is loaded or trained); give "
            "--tokenizer=MODEL, or --vocab_size=N to train one");
    require(options.tokenizer.empty() || options.vocab_size == 0,
            "--tokenizer and --vocab_size both given (a tokenizer that is loaded has its size); give one of "
            "them");
    const TokenizeResult info = tokenize(options);
    print_result("{}: {} tokens for training in {} documents, {} for validation in {}, vocabulary {}\n",
                 options.output, info.num_tokens, info.num_documents, info.num_validation_tokens,
                 info.num_validation_documents, info.vocab_size);
    for (const std::string& remark : info.remarks) print_result("  {}\n", remark);
    return 0;
}

void print_sources(const std::vector<TokenSource>& sources) {
    constexpr std::size_t most = 20;
    for (std::size_t i = 0; i < std::min(most, sources.size()); ++i)
        print_result("  {:<13} {}: {} documents, weight {}\n", i == 0 ? "sources" : "",
                     quoted(sources[i].name), sources[i].documents, sources[i].weight);
    if (sources.size() > most) print_result("  {:<13} and {} more\n", "", sources.size() - most);
}

void inspect_token_file(const std::string& path) {
    const TokenFile file(path);
    const TokenFileInfo& info = file.info();
    const DataIdentity identity = identity_of(info);
    print_result("token file {}\n", path);
    print_result("  format        version {}\n", info.format_version);
    print_result("  vocabulary    {}\n", info.vocab_size);
    print_result("  begin token   {}\n",
                 info.begin_token < 0 ? std::string("none") : std::to_string(info.begin_token));
    print_result("  end token     {}\n", info.end_token);
    print_result("  training      {} tokens in {} documents\n", info.num_tokens, info.num_documents);
    print_result("  validation    {} tokens in {} documents\n", info.num_validation_tokens,
                 info.num_validation_documents);
    print_result("  fingerprint   {} (tokenizer {}, {} model)\n", identity.tokens, identity.tokenizer,
                 bytes_text(info.tokenizer_model.size()));
    print_result("  tokenizer     {}\n", name_of(info.tokenizer_kind));
    print_sources(info.sources);
}

/// Users name a folder by mistake when they mean a file in it.
void refuse_folder(const std::string& path) {
    if (!is_folder_at(path)) return;
    const auto files = list_checkpoints(RunDirectory::checkpoints_of(path));
    fail("`{}` is a folder (a checkpoint or token file is expected); {}", path,
         files.empty() ? "name a file" : fmt::format("name a file, for example {}", files.front().second));
}

int inspect(const Arguments& arguments) {
    const std::string& path = only_file(arguments, "FILE");
    refuse_folder(path);
    if (is_token_file(path)) {
        inspect_token_file(path);
        return 0;
    }
    const FileContents contents = file_contents(path);
    print_result("{} ({}, {} datasets)\n", path, bytes_text(contents.file_bytes), contents.datasets.size());
    for (const char* object : {"/", "/data"}) {
        const auto attributes = contents.attributes.find(object);
        if (attributes == contents.attributes.end()) continue;
        for (const auto& [key, value] : attributes->second)
            if (key != "config") print_result("  {:<22} {}\n", key, text_of(value));
    }
    print_result("\n{:<72} {:<5} {:>14} {:>10}\n", "dataset", "type", "shape", "bytes");
    for (const DatasetInfo& d : contents.datasets)
        print_result("{:<72} {:<5} {:>14} {:>10}\n", d.path, d.dtype,
                     fmt::format("{}", fmt::join(d.shape, "x")), bytes_text(d.bytes));
    const auto root = contents.attributes.find("/");
    if (root != contents.attributes.end() && root->second.count("config"))
        print_result("\nconfiguration:\n{}", text_of(root->second.at("config")));
    return 0;
}

/// A file that cannot be read is a problem of that file; the others are verified nevertheless.
std::vector<std::string> problems_of(const std::string& path) {
    try {
        refuse_folder(path);
        return is_token_file(path) ? verify_token_file(path) : verify_file(path);
    } catch (const UserError& error) {
        return {error.what()};
    }
}

int verify(const Arguments& arguments) {
    require(!arguments.files.empty(),
            "no file given (there is nothing to verify); name checkpoints or token files");
    int code = 0;
    for (const std::string& path : arguments.files) {
        const std::vector<std::string> problems = problems_of(path);
        for (const std::string& problem : problems) print_result("{}: {}\n", path, problem);
        if (problems.empty()) print_result("{}: verifies\n", path);
        if (!problems.empty()) code = 1;
    }
    return code;
}

const std::string* config_of(const FileContents& contents) {
    const auto root = contents.attributes.find("/");
    if (root == contents.attributes.end() || !root->second.count("config")) return nullptr;
    return std::get_if<std::string>(&root->second.at("config"));
}

/// Keys that may change on resume do not count as a difference.
std::vector<std::string> config_differences(const std::string& a, const std::string& b) {
    const FileContents contents_a = file_contents(a), contents_b = file_contents(b);
    const std::string *text_a = config_of(contents_a), *text_b = config_of(contents_b);
    if (!text_a || !text_b) return {};
    const auto parse = [](const std::string& text, const std::string& path) {
        return parse_config(text, path, {}, method_options()).config;
    };
    std::vector<std::string> lines;
    for (const ConfigChange& change : compare_configs(parse(*text_a, a), parse(*text_b, b), method_options()))
        if (!change.allowed)
            lines.push_back(fmt::format("{}: {} / {}", change.key, change.stored, change.requested));
    return lines;
}

std::vector<std::string> checkpoint_differences(const std::string& a, const std::string& b,
                                                double tolerance) {
    std::vector<std::string> lines;
    for (const Difference& d : diff_files(a, b, tolerance)) {
        const bool is_config = d.path == "/" && d.text.rfind("attribute config ", 0) == 0;
        if (!is_config) lines.push_back(fmt::format("{}: {}", d.path, d.text));
    }
    for (const std::string& line : config_differences(a, b)) lines.push_back("configuration, " + line);
    return lines;
}

int diff(const Arguments& arguments) {
    require(arguments.files.size() == 2, "{} files given (two are compared); name two",
            arguments.files.size());
    const std::string &a = arguments.files[0], &b = arguments.files[1];
    for (const std::string& path : arguments.files) refuse_folder(path);
    const double tolerance = arguments.real("tolerance", 0, 0, 1e300);
    const bool tokens = is_token_file(a);
    require(
        tokens == is_token_file(b),
        "`{}` is a token file and `{}` is not (only files of one kind compare); name two token files or two "
        "checkpoints",
        tokens ? a : b, tokens ? b : a);
    const std::vector<std::string> lines =
        tokens ? diff_token_files(a, b) : checkpoint_differences(a, b, tolerance);
    for (const std::string& line : lines) print_result("{}\n", line);
    if (lines.empty()) print_result("identical\n");
    return lines.empty() ? 0 : 1;
}

}  // namespace

std::vector<CommandOption> tokenize_options() {
    return {
        {"output", "FILE.h5", "the token file to write"},
        {"overwrite", "", "replace the output if it exists"},
        {"format", "auto", "of the inputs: auto (each by its content), text, or jsonl (an object a line)"},
        {"text_key", "text", "where the text is in JSON lines; a path with dots reaches into objects"},
        {"skip_bad_lines", "", "leave out JSON lines that cannot be read, and count them"},
        {"tokenizer", "MODEL",
         "a SentencePiece model, or a directory (tokenizer.model) or token file that holds one"},
        {"vocab_size", "N", "train a tokenizer with that many pieces instead"},
        {"begin_token", "auto",
         "what documents begin with: auto (as the tokenizer's directory or token file says), none, or bos"},
        {"validation", "0.01", "share of the documents kept for validation"},
        {"document_separator", "blank-lines",
         "in text files: blank-lines, line, or file (one document a file)"},
        {"seed", "0", "which documents go to validation"},
        {"quiet", "", "no progress line"}};
}

std::vector<CommandOption> diff_options() {
    return {{"tolerance", "0", "largest difference, relative to a dataset's largest value; 0: bitwise"}};
}

int run_tokenize(const CommandContext& context, const Arguments& arguments) {
    return on_rank_zero(context.world, tokenize_files, arguments);
}
int run_inspect(const CommandContext& context, const Arguments& arguments) {
    return on_rank_zero(context.world, inspect, arguments);
}
int run_verify(const CommandContext& context, const Arguments& arguments) {
    return on_rank_zero(context.world, verify, arguments);
}

/// Exit code 0: identical, 1: different.
int run_diff(const CommandContext& context, const Arguments& arguments) {
    return on_rank_zero(context.world, diff, arguments);
}

}  // namespace switchyard

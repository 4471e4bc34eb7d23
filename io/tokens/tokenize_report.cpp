// Each message gives the count, the first place, and what to do.
#include "io/tokens/tokenize_report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/output.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {

namespace {

void warn_of_bytes(const TextSource& source) {
    if (const Incidents& invalid = source.invalid_bytes(); invalid.count > 0)
        print_error(
            "tokenize: warning: {} bytes are not valid UTF-8 and became U+FFFD, the first in {} (is the "
            "input in another encoding?); if so, convert it with iconv",
            invalid.count, invalid.first);
    if (const Incidents& nuls = source.nul_bytes(); nuls.count > 0)
        print_error(
            "tokenize: warning: the text has {} NUL bytes, the first in {} (is the file damaged, or partly "
            "binary?); take them out with tr -d '\\000'",
            nuls.count, nuls.first);
    if (const Incidents& lone = source.lone_surrogates(); lone.count > 0)
        print_error(
            "tokenize: warning: {} lone surrogates (\\ud83d and the like, half a character) became U+FFFD, "
            "the first in {}",
            lone.count, lone.first);
}

void warn_of_lines(const TextSource& source) {
    const std::vector<TextInput>& inputs = source.inputs();
    const bool found = std::any_of(inputs.begin(), inputs.end(), [](const TextInput& input) {
        return input.format == TextFormat::json_lines;
    });
    if (source.rule().expects_json_lines() && !found)
        print_error(
            "tokenize: warning: no input has JSON lines (--text_key and --skip_bad_lines say nothing about "
            "text); check the files, or give --format=jsonl");
    if (source.num_bad_lines() == 0) return;
    const bool are_all = static_cast<std::int64_t>(source.bad_lines().size()) == source.num_bad_lines();
    print_error("tokenize: warning: {} lines are not JSON objects with text and were left out{}:",
                source.num_bad_lines(), are_all ? "" : ", the first");
    for (const std::string& line : source.bad_lines()) print_error("  {}", line);
}

}  // namespace

void warn(const TokenizeFindings& found) {
    warn_of_bytes(found.source);
    warn_of_lines(found.source);
    if (found.num_unknown > 0)
        print_error(
            "tokenize: warning: {} of {} tokens are the unknown piece (the tokenizer lacks characters of "
            "this text and has no byte fallback); where they matter, train a tokenizer with --vocab_size=N",
            found.num_unknown, found.num_tokens);
    if (!found.round_trip.exact())
        print_error(
            "tokenize: warning: {} (the tokenizer drops or changes them, and a model cannot write them); "
            "where they matter, train a tokenizer with --vocab_size=N",
            found.round_trip.sentence());
}

std::vector<std::string> remarks(const TokenizeOptions& options, const TokenizeFindings& found,
                                 const GivenTokenizer& given, const Tokenizer& tokenizer) {
    constexpr std::size_t most_names = 6;
    std::vector<std::string> lines;
    for (const TextFormat format : {TextFormat::json_lines, TextFormat::text}) {
        std::vector<std::string> names;
        for (const TextInput& input : found.source.inputs())
            if (input.format == format) names.push_back(input.name);
        if (names.empty()) continue;
        const std::size_t more = names.size() - std::min(names.size(), most_names);
        names.resize(names.size() - more);
        lines.push_back(
            fmt::format("read as {}: {}{}",
                        format == TextFormat::text
                            ? fmt::format("text (a document ends at: {})", options.document_separator)
                            : fmt::format("JSON lines (text under {})", quoted(found.source.rule().text_key)),
                        fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : ""));
    }
    lines.push_back(
        given.begin_token < 0
            ? fmt::format("documents end with {} and have no begin token", tokenizer.piece(given.end_token))
            : fmt::format("documents begin with {} and end with {}", tokenizer.piece(given.begin_token),
                          tokenizer.piece(given.end_token)));
    if (!given.said_by.empty()) lines.back() += fmt::format(", as `{}` says", given.said_by);
    if (found.round_trip.exact()) lines.push_back(found.round_trip.sentence());
    return lines;
}

}  // namespace switchyard

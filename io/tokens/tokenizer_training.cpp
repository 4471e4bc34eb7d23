// Takes a sample by seeking in the inputs, and feeds SentencePiece's trainer from memory.
#include "io/tokens/tokenizer_training.hpp"

#include <fmt/format.h>
#include <omp.h>
#include <sentencepiece_trainer.h>
#include <unistd.h>

#include <algorithm>
#include <regex>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/tokens/json_line.hpp"

namespace switchyard {
namespace {

constexpr std::uint64_t sample_block = 256 << 10;
constexpr std::size_t max_sentence_bytes = 32 << 10, longest_json_line = 1 << 30;
constexpr std::int64_t num_fixed_pieces = 3 + 256;

class Sentences : public sentencepiece::SentenceIterator {
  public:
    explicit Sentences(std::vector<std::string> lines) : lines_(std::move(lines)) {}
    bool done() const override { return position_ >= lines_.size(); }
    void Next() override { ++position_; }
    const std::string& value() const override { return lines_[position_]; }
    sentencepiece::util::Status status() const override { return {}; }

  private:
    std::vector<std::string> lines_;
    std::size_t position_ = 0;
};

/// Splits text into `lines` at line ends, and long lines between characters. Blank lines are left out.
void add_lines(const std::string& text, std::vector<std::string>& lines) {
    std::size_t begin = 0;
    while (begin < text.size()) {
        std::size_t end = std::min(text.find('\n', begin), text.size());
        if (end - begin > max_sentence_bytes) end = character_boundary(text, begin + max_sentence_bytes);
        std::string line = text.substr(begin, end - begin);
        if (line.find_first_not_of(" \t\r\v\f") != std::string::npos) lines.push_back(std::move(line));
        begin = end + (end < text.size() && text[end] == '\n' ? 1 : 0);
    }
}

/// Reads `bytes` bytes of lines from `offset` on; the line that was begun before is left out.
void sample_block_at(const TextInput& input, std::uint64_t offset, std::uint64_t bytes, const TextRule& rule,
                     std::vector<std::string>& lines) {
    const bool json_lines = input.format == TextFormat::json_lines;
    FileDescriptor fd = open_input(input);
    require(::lseek(fd, static_cast<off_t>(offset), SEEK_SET) >= 0, "cannot seek in `{}` {}", input.name,
            system_problem);
    LineReader reader(std::move(fd), input.name);
    std::string line;
    bool complete = true, partial = offset > 0;
    const std::size_t limit = json_lines ? longest_json_line : max_sentence_bytes;
    std::uint64_t taken = 0, number = 0;
    while (taken < bytes && reader.next(line, complete, limit)) {
        taken += line.size() + 1;
        if (partial) {
            partial = !complete && taken < bytes / 2;  // in a single endless line, its middle is used
            continue;
        }
        if (number++ == 0 && offset == 0 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
        if (json_lines) {
            if (is_blank(line)) continue;
            try {
                line = text_of_json_line(line, rule.text_key).text;
            } catch (const UserError& problem) {
                if (rule.skip_bad_lines) continue;
                refuse_bad_line(offset == 0 ? fmt::format("`{}` line {}", input.name, number)
                                            : fmt::format("`{}`", input.name),
                                problem.what());
            }
        }
        repair_utf8(line);
        add_lines(line, lines);
    }
}

}  // namespace

std::vector<std::string> sample_lines(const std::vector<TextInput>& inputs, const TextRule& rule,
                                      std::uint64_t max_bytes) {
    std::uint64_t total = 0;
    for (const TextInput& input : inputs) total += input.size;
    std::vector<std::string> lines;
    for (const TextInput& input : inputs) {
        if (total <= max_bytes) {
            sample_block_at(input, 0, input.size + 1, rule, lines);
            continue;
        }
        const double share = static_cast<double>(max_bytes) / static_cast<double>(total);
        const auto quota = static_cast<std::uint64_t>(share * static_cast<double>(input.size));
        const std::uint64_t blocks = std::max<std::uint64_t>(quota / sample_block, 1);
        for (std::uint64_t i = 0; i < blocks; ++i) {
            sample_block_at(input, input.size / blocks * i, std::max<std::uint64_t>(quota / blocks, 1), rule,
                            lines);
        }
    }
    return lines;
}

std::string train_tokenizer(std::vector<std::string> lines, std::int64_t vocab_size) {
    require(
        vocab_size > num_fixed_pieces,
        "vocab_size = {} is too small (3 control pieces and 256 bytes come first); ask for some thousands",
        vocab_size);
    require(!lines.empty(), "the inputs hold no text (a tokenizer is to be trained on it); check the files");
    Sentences sentences(std::move(lines));
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(
        {{"model_type", "bpe"},
         {"vocab_size", std::to_string(vocab_size)},
         {"byte_fallback", "true"},
         {"normalization_rule_name", "identity"},
         {"remove_extra_whitespaces", "false"},
         {"allow_whitespace_only_pieces", "true"},
         {"split_digits", "true"},
         {"character_coverage", "0.9995"},
         {"max_sentence_length", std::to_string(2 * max_sentence_bytes)},
         {"num_threads", "4"},
         {"minloglevel", "2"}},
        &sentences, &model);
    if (status.ok()) return model;
    const std::string message = status.ToString();
    std::smatch found;
    if (std::regex_search(message, found, std::regex("required_chars\\. (\\d+) vs (\\d+)"))) {
        fail(
            "vocab_size = {} is too small for this text (control pieces, bytes and the text's characters "
            "need {}); ask for more",
            vocab_size, found[2].str());
    }
    if (std::regex_search(message, found, std::regex("too high .*<= (\\d+)"))) {
        fail(
            "vocab_size = {} is too large for this text (it gives at most {} pieces); ask for less or give "
            "more text",
            vocab_size, found[1].str());
    }
    fail("training a tokenizer on this text failed ({}); give more text or another --vocab_size", message);
}

}  // namespace switchyard

// diff_token_files: reads both files once, in blocks.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t block = token_format::block_elements;

class Lines {
  public:
    template <class T>
    void compare(const std::string& what, const T& a, const T& b) {
        if (a != b) lines_.push_back(fmt::format("{}: {} / {}", what, a, b));
    }
    void add(std::string line) { lines_.push_back(std::move(line)); }
    std::vector<std::string> take() { return std::move(lines_); }

  private:
    std::vector<std::string> lines_;
};

/// Both files have `count` tokens in the split.
void compare_tokens(const TokenFile& a, const TokenFile& b, TokenSplit split, std::int64_t count,
                    Lines& lines) {
    std::vector<std::int32_t> in_a, in_b;
    std::int64_t different = 0, first = -1;
    for (std::int64_t begin = 0; begin < count; begin += block) {
        const std::int64_t size = std::min(block, count - begin);
        in_a.resize(static_cast<std::size_t>(size));
        in_b.resize(static_cast<std::size_t>(size));
        a.read(split, begin, size, in_a.data());
        b.read(split, begin, size, in_b.data());
        for (std::size_t i = 0; i < in_a.size(); ++i) {
            if (in_a[i] == in_b[i]) continue;
            if (different++ == 0) first = begin + static_cast<std::int64_t>(i);
        }
    }
    if (different > 0)
        lines.add(fmt::format("{} tokens: {} of {} differ, the first at position {}",
                              token_format::name_of(split), different, count, first));
}

/// Names are not compared, because they tell where the inputs were stored and not what they held; files of
/// version 1 have no table.
void compare_sources(const std::vector<TokenSource>& a, const std::vector<TokenSource>& b, Lines& lines) {
    if (a.empty() || b.empty()) return;
    lines.compare("number of sources", a.size(), b.size());
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        lines.compare(fmt::format("documents of source {}", i), a[i].documents, b[i].documents);
        lines.compare(fmt::format("weight of source {}", i), a[i].weight, b[i].weight);
    }
}

}  // namespace

std::vector<std::string> diff_token_files(const std::string& path_a, const std::string& path_b) {
    const TokenFile a(path_a), b(path_b);
    const TokenFileInfo &in_a = a.info(), &in_b = b.info();
    Lines lines;
    lines.compare("vocabulary", in_a.vocab_size, in_b.vocab_size);
    lines.compare("begin token", in_a.begin_token, in_b.begin_token);
    lines.compare("end token", in_a.end_token, in_b.end_token);
    lines.compare("kind of tokenizer", std::string(name_of(in_a.tokenizer_kind)),
                  std::string(name_of(in_b.tokenizer_kind)));
    if (in_a.tokenizer_model != in_b.tokenizer_model ||
        in_a.tokenizer_fingerprint != in_b.tokenizer_fingerprint)
        lines.add(fmt::format("tokenizer: fingerprints {:016x} / {:016x}", in_a.tokenizer_fingerprint,
                              in_b.tokenizer_fingerprint));
    lines.compare("training documents", in_a.num_documents, in_b.num_documents);
    lines.compare("validation documents", in_a.num_validation_documents, in_b.num_validation_documents);
    compare_sources(in_a.sources, in_b.sources, lines);
    for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
        const bool training = split == TokenSplit::training;
        const std::int64_t count_a = training ? in_a.num_tokens : in_a.num_validation_tokens,
                           count_b = training ? in_b.num_tokens : in_b.num_validation_tokens;
        lines.compare(fmt::format("number of {} tokens", token_format::name_of(split)), count_a, count_b);
        if (count_a == count_b) compare_tokens(a, b, split, count_a, lines);
    }
    return lines.take();
}

}  // namespace switchyard

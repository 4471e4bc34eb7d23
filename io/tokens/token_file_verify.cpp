// verify_token_file: reads everything once, in blocks, and reports every kind of problem.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;

namespace {

using Problems = std::vector<std::string>;

/// Reads a dataset in blocks and compares its checksum; `visit(index, value)` is called for every element.
template <class Visit>
void check_dataset(hid_t file, const std::string& path, Problems& problems, Visit visit) {
    try {
        const Handle dataset = hdf5::open_object(file, path);
        const std::uint64_t size = extent(dataset), stored = hdf5::word_attribute(dataset, "checksum");
        std::vector<std::uint64_t> values;
        std::uint64_t sum = 0;
        for (std::uint64_t begin = 0; begin < size; begin += block_elements) {
            values.resize(std::min<std::uint64_t>(block_elements, size - begin));
            read_range(dataset, H5T_NATIVE_UINT64, begin, values.size(), values.data());
            for (std::size_t i = 0; i < values.size(); ++i) {
                sum += checksum_term(begin + i, values[i]);
                visit(begin + i, values[i]);
            }
        }
        if (sum != stored) {
            problems.push_back(fmt::format("{}: checksum {:016x} of the values is not the stored {:016x}",
                                           path, sum, stored));
        }
    } catch (const UserError& problem) {
        problems.push_back(fmt::format("{}: {}", path, problem.what()));
    }
}

/// Document starts, read forwards only, in blocks.
class Starts {
  public:
    Starts(hid_t file, TokenSplit split)
        : dataset_(hdf5::open_object(file, starts_path(split))), size_(extent(dataset_)) {}
    /// The next start; the maximum of the type after the last one.
    std::uint64_t peek() {
        if (next_ == size_) return ~std::uint64_t{0};
        if (next_ >= begin_ + values_.size()) {
            begin_ = next_;
            values_.resize(std::min<std::uint64_t>(block_elements, size_ - begin_));
            read_range(dataset_, H5T_NATIVE_UINT64, begin_, values_.size(), values_.data());
        }
        return values_[next_ - begin_];
    }
    void advance() { ++next_; }
    bool done() const { return next_ == size_; }

  private:
    Handle dataset_;
    std::uint64_t size_, next_ = 0, begin_ = 0;
    std::vector<std::uint64_t> values_;
};

/// Checks that ids are inside the vocabulary, and that a document starts at 0 and after every end token,
/// nowhere else, with the begin token if there is one.
void check_tokens(hid_t file, TokenSplit split, const TokenFileInfo& info, Problems& problems) {
    const std::uint64_t num_tokens = static_cast<std::uint64_t>(
        split == TokenSplit::training ? info.num_tokens : info.num_validation_tokens);
    const std::string path = tokens_path(split);
    Starts starts(file, split);
    std::uint64_t outside = 0, misplaced = 0, first_outside = 0, first_misplaced = 0;
    std::uint64_t not_begun = 0, first_not_begun = 0;
    bool at_start = true;
    check_dataset(file, path, problems, [&](std::uint64_t index, std::uint64_t id) {
        if (id >= static_cast<std::uint64_t>(info.vocab_size) && outside++ == 0) first_outside = index;
        const bool listed = starts.peek() == index;
        if (listed) starts.advance();
        if (listed != at_start && misplaced++ == 0) first_misplaced = index;
        const bool begins = info.begin_token < 0 || id == static_cast<std::uint64_t>(info.begin_token);
        if (at_start && !begins && not_begun++ == 0) first_not_begun = index;
        at_start = id == static_cast<std::uint64_t>(info.end_token);
    });
    if (outside > 0) {
        problems.push_back(fmt::format("{}: {} ids outside the vocabulary of {}, the first at position {}",
                                       path, outside, info.vocab_size, first_outside));
    }
    if (misplaced > 0 || !starts.done() || (num_tokens > 0 && !at_start)) {
        problems.push_back(fmt::format("{}: end tokens and document starts do not fit, first at position {}",
                                       path, misplaced > 0 ? first_misplaced : num_tokens));
    }
    if (not_begun > 0) {
        problems.push_back(
            fmt::format("{}: {} documents do not start with the begin token {}, the first at position {}",
                        path, not_begun, info.begin_token, first_not_begun));
    }
}

/// Checks the tokenizer as far as this program supports its kind.
void check_tokenizer(hid_t file, const TokenFile& tokens, Problems& problems) {
    const TokenFileInfo& info = tokens.info();
    if (info.tokenizer_kind == TokenizerKind::none) return;
    check_dataset(file, tokenizer_path, problems, [](std::uint64_t, std::uint64_t) {});
    if (info.tokenizer_kind != TokenizerKind::sentencepiece) return;
    const std::int64_t vocab_size = tokenizer_of(tokens).vocab_size();
    if (vocab_size != info.vocab_size) {
        problems.push_back(
            fmt::format("the tokenizer has {} pieces, the file says {}", vocab_size, info.vocab_size));
    }
}

void check_sources(const TokenFileInfo& info, Problems& problems) {
    std::int64_t documents = 0;
    for (const TokenSource& source : info.sources) documents += source.documents;
    const std::int64_t all = info.num_documents + info.num_validation_documents;
    if (!info.sources.empty() && documents != all)
        problems.push_back(
            fmt::format("{}: {} documents, but the file has {}", sources_path, documents, all));
}

}  // namespace

std::vector<std::string> verify_token_file(const std::string& path) {
    Problems problems;
    try {
        const TokenFile tokens(path);
        const TokenFileInfo& info = tokens.info();
        const Handle file = hdf5::open_file(path);
        for (TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
            check_dataset(file, starts_path(split), problems, [](std::uint64_t, std::uint64_t) {});
            check_tokens(file, split, info, problems);
        }
        check_tokenizer(file, tokens, problems);
        check_sources(info, problems);
    } catch (const UnreadableError&) {
        throw;
    } catch (const UserError& problem) {
        problems.push_back(problem.what());
    }
    return problems;
}

}  // namespace switchyard

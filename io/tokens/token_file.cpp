// TokenFile: what is cheap to check is checked when a file is opened (whole, ours, counts and fingerprints
// that fit); ids are checked as they are read, and each chunk against its Fletcher checksum.
#include "io/tokens/token_file.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/error.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;

namespace {

struct Part {
    Handle tokens, starts;
    std::uint64_t num_tokens = 0, num_documents = 0;
    bool wide = false;
    SplitChecksums checksums;
};

Handle open_file(const std::string& path) {
    hdf5::silence_errors();
    std::error_code error;
    require(
        std::filesystem::exists(path, error),
        "token file `{}` does not exist (data.tokens); make one with `switchyard tokenize TEXT --output={}`",
        path, path);
    require(std::filesystem::is_regular_file(path, error), "`{}` is not a file (a token file is expected)",
            path);
    try {
        return Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "H5Fopen");
    } catch (const UserError& problem) {
        fail(
            "token file `{}` cannot be opened: it is truncated, damaged, unreadable or not an HDF5 file ({}); "
            "copy it again or make it again with `switchyard tokenize`",
            path, problem.what());
    }
}

Handle open_dataset(hid_t file, const std::string& path) {
    return Handle(H5Dopen2(file, path.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen2");
}

Part open_part(hid_t file, TokenSplit split) {
    Part part;
    part.tokens = open_dataset(file, tokens_path(split));
    part.starts = open_dataset(file, starts_path(split));
    part.num_tokens = extent(part.tokens);
    part.num_documents = extent(part.starts);
    part.checksums = {read_unsigned(part.tokens, "checksum"), read_unsigned(part.starts, "checksum")};
    const Handle type(H5Dget_type(part.tokens), H5Tclose, "H5Dget_type");
    const std::size_t bytes = H5Tget_size(type);
    require(H5Tget_class(type) == H5T_INTEGER && (bytes == 2 || bytes == 4),
            "{} is not of type uint16 or uint32", tokens_path(split));
    part.wide = bytes == 4;
    require((part.num_documents == 0) == (part.num_tokens == 0) && part.num_documents <= part.num_tokens,
            "{} has {} documents but {} tokens", group_of(split), part.num_documents, part.num_tokens);
    return part;
}

std::string read_model(hid_t file) {
    const Handle dataset = open_dataset(file, tokenizer_path);
    std::string model(extent(dataset), '\0');
    read_range(dataset, H5T_NATIVE_UINT8, 0, model.size(), model.data());
    return model;
}

/// Ids of [begin, begin + count) without a look at the vocabulary.
void read_ids(const Part& part, std::uint64_t begin, std::uint64_t count, std::int32_t* ids) {
    if (part.wide) {
        read_range(part.tokens, H5T_NATIVE_UINT32, begin, count, ids);
        return;
    }
    std::vector<std::uint16_t> narrow(count);
    read_range(part.tokens, H5T_NATIVE_UINT16, begin, count, narrow.data());
    std::copy(narrow.begin(), narrow.end(), ids);
}

}  // namespace

struct TokenFile::State {
    std::string path;
    Handle file;
    TokenFileInfo info;
    std::array<Part, 2> parts;

    const Part& part(TokenSplit split) const { return parts[split == TokenSplit::training ? 0 : 1]; }
    void read_info();
    void check_info() const;
};

void TokenFile::State::read_info() {
    const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    require(has_attribute(root, "format") && read_text(root, "format") == format_name,
            "its attribute `format` is missing or another than `{}`", format_name);
    const std::int64_t file_version = read_integer(root, "format_version");
    require(file_version == version, "it has format version {}, this program reads {}", file_version,
            version);
    info.vocab_size = read_integer(root, "vocab_size");
    info.end_token = static_cast<std::int32_t>(read_integer(root, "end_token"));
    info.fingerprint = read_unsigned(root, "fingerprint");
    info.tokenizer_fingerprint = read_unsigned(root, "tokenizer_fingerprint");
    parts = {open_part(file, TokenSplit::training), open_part(file, TokenSplit::validation)};
    info.num_tokens = static_cast<std::int64_t>(parts[0].num_tokens);
    info.num_validation_tokens = static_cast<std::int64_t>(parts[1].num_tokens);
    info.num_documents = static_cast<std::int64_t>(parts[0].num_documents);
    info.num_validation_documents = static_cast<std::int64_t>(parts[1].num_documents);
    info.tokenizer_model = read_model(file);
}

void TokenFile::State::check_info() const {
    require(info.vocab_size > 0 && info.end_token >= 0 && info.end_token < info.vocab_size,
            "its end token {} is outside its vocabulary of {}", info.end_token, info.vocab_size);
    require(fingerprint(parts[0].checksums, parts[1].checksums) == info.fingerprint,
            "its fingerprint does not fit its checksums");
    require(checksum_bytes(info.tokenizer_model) == info.tokenizer_fingerprint,
            "its tokenizer does not fit the tokenizer fingerprint");
}

TokenFile::TokenFile(const std::string& path) : state_(std::make_unique<State>()) {
    state_->path = path;
    state_->file = open_file(path);
    try {
        state_->read_info();
        state_->check_info();
    } catch (const UserError& problem) {
        fail(
            "`{}` is not an intact token file: {} (training needs one); make it with `switchyard tokenize`, "
            "or look "
            "at it with `switchyard verify`",
            path, problem.what());
    }
}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

const TokenFileInfo& TokenFile::info() const {
    return state_->info;
}

const std::string& TokenFile::path() const {
    return state_->path;
}

void TokenFile::read(TokenSplit split, std::int64_t begin, std::int64_t count, std::int32_t* ids) const {
    const Part& part = state_->part(split);
    internal_check(begin >= 0 && count >= 0 && begin + count <= static_cast<std::int64_t>(part.num_tokens),
                   "tokens [{}, {}) of {} {} tokens", begin, begin + count, part.num_tokens,
                   token_format::name_of(split));
    try {
        read_ids(part, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(count), ids);
    } catch (const UserError& problem) {
        fail(
            "cannot read {} tokens {} to {} of `{}`: {} (the file is damaged or its disk unreachable); check "
            "it with "
            "`switchyard verify`",
            token_format::name_of(split), begin, begin + count - 1, state_->path, problem.what());
    }
    const auto vocab_size = static_cast<std::uint32_t>(state_->info.vocab_size);
    for (std::int64_t i = 0; i < count; ++i) {
        require(static_cast<std::uint32_t>(ids[i]) < vocab_size,
                "`{}`: {} token {} has id {}, outside the vocabulary of {} (the file is damaged or was not "
                "made by "
                "`switchyard tokenize`); make it again",
                state_->path, token_format::name_of(split), begin + i, static_cast<std::uint32_t>(ids[i]),
                vocab_size);
    }
}

std::int64_t TokenFile::document_start(TokenSplit split, std::int64_t p) const {
    const Part& part = state_->part(split);
    internal_check(p >= 0 && p < static_cast<std::int64_t>(part.num_tokens), "no {} token {}",
                   token_format::name_of(split), p);
    std::uint64_t low = 0, high = part.num_documents;  // the start wanted has an index in [low, high)
    while (high - low > chunk_elements) {
        const std::uint64_t middle = (low + high) / 2;
        std::int64_t start = 0;
        read_range(part.starts, H5T_NATIVE_INT64, middle, 1, &start);
        (start <= p ? low : high) = middle;
    }
    std::vector<std::int64_t> starts(high - low);
    read_range(part.starts, H5T_NATIVE_INT64, low, starts.size(), starts.data());
    const auto after = std::upper_bound(starts.begin(), starts.end(), p);
    require(after != starts.begin(),
            "`{}`: no document holds {} token {} (the file is damaged); make it again", state_->path,
            token_format::name_of(split), p);
    return *(after - 1);
}

bool is_token_file(const std::string& path) {
    hdf5::silence_errors();
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) return false;
    try {
        const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, "H5Fopen");
        const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
        return has_attribute(root, "format") && read_text(root, "format") == format_name;
    } catch (const UserError&) {
        return false;
    }
}

}  // namespace switchyard

// TokenFile: what is cheap to check is checked when a file is opened (whole, ours, counts and fingerprints
// that fit); ids are checked as they are read, and each chunk against its Fletcher checksum.
#include "io/tokens/token_file.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <utility>

#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/files/structure_reader.hpp"
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

[[noreturn]] void refuse_missing(const std::string& path) {
    std::error_code error;
    const std::filesystem::path here = std::filesystem::current_path(error);
    require(std::filesystem::path(path).is_absolute() || error,
            "token file `{}` does not exist (data.tokens, relative to `{}`); give --data.tokens=FILE with "
            "its path from here, or make one with `switchyard tokenize TEXT --output={}`",
            path, here.string(), path);
    fail(
        "token file `{}` does not exist (data.tokens); give --data.tokens=FILE if it has moved, or make one "
        "with `switchyard tokenize TEXT --output={}`",
        path, path);
}

Handle open_file(const std::string& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) refuse_missing(path);
    try {
        return hdf5::open_file(path);
    } catch (const UnreadableError& problem) {
        fail<UnreadableError>(
            "token file `{}` cannot be opened: {} (the system refused it; the file may be whole); mend that "
            "and try again",
            path, problem.what());
    } catch (const UserError& problem) {
        fail(
            "token file `{}` cannot be opened: it is truncated, damaged or not an HDF5 file ({}); copy it "
            "again or make it again with `switchyard tokenize`",
            path, problem.what());
    }
}

struct OpenDataset {
    Handle handle;
    std::uint64_t size = 0;
};

/// One-dimensional, of unsigned integers of one of these sizes or int64, and inside the file.
OpenDataset open_dataset(hid_t file, const std::string& path,
                         std::initializer_list<std::size_t> element_bytes) try {
    hsize_t file_bytes = 0;
    SWITCHYARD_HDF5(H5Fget_filesize(file, &file_bytes));
    OpenDataset dataset{hdf5::open_object(file, path)};
    dataset.size = hdf5::checked_shape(dataset.handle, 1, file_bytes)[0];
    const Handle type(H5Dget_type(dataset.handle), H5Tclose, "H5Dget_type");
    require(H5Tget_class(type) == H5T_INTEGER && std::find(element_bytes.begin(), element_bytes.end(),
                                                           H5Tget_size(type)) != element_bytes.end(),
            "it is not of integers of {} bytes", fmt::join(element_bytes, " or "));
    return dataset;
} catch (const UserError& problem) {
    fail("{}: {}", path, problem.what());
}

std::uint64_t stored_checksum(const OpenDataset& dataset, const std::string& path) try {
    return hdf5::word_attribute(dataset.handle, "checksum");
} catch (const UserError& problem) {
    fail("{}: {}", path, problem.what());
}

Part open_part(hid_t file, TokenSplit split) {
    Part part;
    OpenDataset tokens = open_dataset(file, tokens_path(split), {2, 4}),
                starts = open_dataset(file, starts_path(split), {8});
    part.num_tokens = tokens.size;
    part.num_documents = starts.size;
    part.checksums = {stored_checksum(tokens, tokens_path(split)),
                      stored_checksum(starts, starts_path(split))};
    part.tokens = std::move(tokens.handle);
    part.starts = std::move(starts.handle);
    const Handle type(H5Dget_type(part.tokens), H5Tclose, "H5Dget_type");
    part.wide = H5Tget_size(type) == 4;
    require((part.num_documents == 0) == (part.num_tokens == 0) && part.num_documents <= part.num_tokens,
            "{} has {} documents but {} tokens", group_of(split), part.num_documents, part.num_tokens);
    return part;
}

constexpr std::pair<TokenizerKind, const char*> kinds[] = {{TokenizerKind::sentencepiece, "sentencepiece"},
                                                           {TokenizerKind::hf_json, "hf_json"},
                                                           {TokenizerKind::none, "none"}};

TokenizerKind kind_of(const std::string& name) {
    for (const auto& [kind, its_name] : kinds)
        if (name == its_name) return kind;
    fail("its attribute `tokenizer_kind` is none of sentencepiece, hf_json and none");
}

bool says_token_file(hid_t root) {
    return hdf5::has_attribute(root, "format") && hdf5::text_attribute(root, "format") == format_name;
}

std::string read_model(hid_t file) {
    const OpenDataset dataset = open_dataset(file, tokenizer_path, {1});
    require(dataset.size <= longest_tokenizer, "{} has {} bytes (at most {} are read)", tokenizer_path,
            dataset.size, longest_tokenizer);
    std::string model(dataset.size, '\0');
    read_range(dataset.handle, H5T_NATIVE_UINT8, 0, model.size(), model.data());
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
    require(says_token_file(root), "its attribute `format` is missing or is not `{}`", format_name);
    info.format_version = hdf5::integer_attribute(root, "format_version");
    require(info.format_version >= oldest_version && info.format_version <= version,
            "it has format version {}, this program reads {} to {}", info.format_version, oldest_version,
            version);
    info.vocab_size =
        hdf5::integer_attribute(root, "vocab_size", 1, std::numeric_limits<std::int32_t>::max());
    const auto token = [&](const char* key, std::int64_t least) {
        return static_cast<std::int32_t>(hdf5::integer_attribute(root, key, least, info.vocab_size - 1));
    };
    info.end_token = token("end_token", 0);
    if (info.format_version > 1) {
        info.begin_token = token("begin_token", -1);
        info.tokenizer_kind = kind_of(hdf5::text_attribute(root, "tokenizer_kind"));
        info.sources = read_sources(file);
    }
    info.fingerprint = hdf5::word_attribute(root, "fingerprint");
    info.tokenizer_fingerprint = hdf5::word_attribute(root, "tokenizer_fingerprint");
    parts = {open_part(file, TokenSplit::training), open_part(file, TokenSplit::validation)};
    info.num_tokens = static_cast<std::int64_t>(parts[0].num_tokens);
    info.num_validation_tokens = static_cast<std::int64_t>(parts[1].num_tokens);
    info.num_documents = static_cast<std::int64_t>(parts[0].num_documents);
    info.num_validation_documents = static_cast<std::int64_t>(parts[1].num_documents);
    info.tokenizer_model = read_model(file);
}

void TokenFile::State::check_info() const {
    require(info.begin_token != info.end_token, "its begin token {} is its end token", info.begin_token);
    require(fingerprint(parts[0].checksums, parts[1].checksums) == info.fingerprint,
            "its fingerprint does not fit its checksums");
    const bool made_elsewhere = info.tokenizer_kind == TokenizerKind::none;
    require(!made_elsewhere || info.tokenizer_model.empty(),
            "it holds the bytes of a tokenizer, but its attribute `tokenizer_kind` is none");
    require(made_elsewhere || checksum_bytes(info.tokenizer_model) == info.tokenizer_fingerprint,
            "its tokenizer does not fit the tokenizer fingerprint");
}

TokenFile::TokenFile(const std::string& path) : state_(std::make_unique<State>()) {
    state_->path = path;
    state_->file = open_file(path);
    try {
        state_->read_info();
        state_->check_info();
    } catch (const UnreadableError&) {
        throw;
    } catch (const UserError& problem) {
        fail(
            "`{}` is not an intact token file: {} (training needs one); make it with `switchyard tokenize`, "
            "or look at it with `switchyard verify`",
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
            "it with `switchyard verify`",
            token_format::name_of(split), begin, begin + count - 1, state_->path, problem.what());
    }
    const auto vocab_size = static_cast<std::uint32_t>(state_->info.vocab_size);
    for (std::int64_t i = 0; i < count; ++i) {
        require(static_cast<std::uint32_t>(ids[i]) < vocab_size,
                "`{}`: {} token {} has id {}, outside the vocabulary of {} (the file is damaged or was not "
                "made by `switchyard tokenize`); make it again",
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

const char* name_of(TokenizerKind wanted) {
    for (const auto& [kind, name] : kinds)
        if (kind == wanted) return name;
    return "?";
}

Tokenizer tokenizer_of(const TokenFile& file) {
    const TokenFileInfo& info = file.info();
    require(
        info.tokenizer_kind == TokenizerKind::sentencepiece,
        "token file `{}` has a tokenizer of kind {} (text goes to tokens and back with SentencePiece only); "
        "give a token file made with a SentencePiece model",
        file.path(), name_of(info.tokenizer_kind));
    return Tokenizer(info.tokenizer_model);
}

namespace {

/// All of the index of a dataset's chunks, which must be as many as its values need.
void walk_chunks(hid_t file, const std::string& path) {
    constexpr std::uint64_t most_chunks = 5'000'000;  // more take too long
    const Handle dataset = hdf5::open_object(file, path);
    const Handle creation(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
    hsize_t chunk = 0, stored = 0;
    if (H5Pget_layout(creation) != H5D_CHUNKED || H5Pget_chunk(creation, 1, &chunk) != 1 || chunk == 0)
        return;
    const std::uint64_t needed = (extent(dataset) + chunk - 1) / chunk;
    if (needed > most_chunks) return;
    const Handle space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    SWITCHYARD_HDF5(H5Dget_num_chunks(dataset, space, &stored));
    require(stored == needed, "{} has {} chunks of {}", path, stored, needed);
}

bool is_token_file_here(const std::string& path) {
    try {
        const Handle file = hdf5::open_file(path);
        const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
        return says_token_file(root);
    } catch (const UserError&) {
        return false;
    }
}

/// "yes" or "no". All of the structure is read for it: should the library not survive that, it is in a child.
std::string token_structure(const std::string& path) {
    if (!is_token_file_here(path)) return "no";
    try {
        const TokenFile opened(path);
        const Handle file = hdf5::open_file(path);
        for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation})
            for (const std::string& dataset : {tokens_path(split), starts_path(split)})
                walk_chunks(file, dataset);
    } catch (const UserError&) {  // is found, and told, by whoever opens it
    }
    return "yes";
}

const RegisterStructureReader registered("tokens", token_structure);

}  // namespace

bool is_token_file(const std::string& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error) &&
           read_structure("tokens", path, token_structure) == "yes";
}

TokenFile open_token_file(const std::string& path) {
    is_token_file(path);  // throws where it is not safe to open
    return TokenFile(path);
}

}  // namespace switchyard

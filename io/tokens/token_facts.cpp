// Checks here are those that are cheap: the file is complete and a token file, and its counts and
// fingerprints agree.
#include "io/tokens/token_facts.hpp"

#include <filesystem>
#include <limits>
#include <utility>

#include "config/keys.hpp"
#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;

namespace {

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
    if (!exists_at(path)) refuse_missing(path);
    try {
        return hdf5::open_file(path);
    } catch (const UnreadableError& problem) {
        fail<UnreadableError>(
            "token file `{}` cannot be opened: {} (the system refused it; the file may be whole); mend that "
            "and try again",
            path, without_advice(problem.what()));
    } catch (const UserError& problem) {
        fail(
            "token file `{}` cannot be opened: it is truncated, damaged or not an HDF5 file ({}); copy it "
            "again or make it again with `switchyard tokenize`",
            path, problem.what());
    }
}

/// `memory_type`: the type of the values once they are read.
ValuePlace place_of(const OpenDataset& dataset, hid_t memory_type, std::uint64_t file_bytes) {
    const Handle type(H5Dget_type(dataset.handle), H5Tclose, "H5Dget_type");
    const Handle creation(H5Dget_create_plist(dataset.handle), H5Pclose, "H5Dget_create_plist");
    ValuePlace place{dataset.size, H5Tget_size(type), {}};
    if (H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Tequal(type, memory_type) <= 0) return place;
    const haddr_t offset = H5Dget_offset(dataset.handle);  // undefined where nothing was written
    if (offset != HADDR_UNDEF && offset <= file_bytes &&
        place.size <= (file_bytes - offset) / place.element_bytes)
        place.offset = offset;
    return place;
}

std::uint64_t stored_checksum(const OpenDataset& dataset, const std::string& path) try {
    return hdf5::word_attribute(dataset.handle, "checksum");
} catch (const UserError& problem) {
    fail("{}: {}", path, problem.what());
}

SplitChecksums read_part(hid_t file, TokenSplit split, std::uint64_t file_bytes, TokenFileFacts::Part& part) {
    const OpenDataset tokens = open_dataset(file, tokens_path(split), {2, 4}),
                      starts = open_dataset(file, starts_path(split), {8});
    const Handle type(H5Dget_type(tokens.handle), H5Tclose, "H5Dget_type");
    part.tokens =
        place_of(tokens, H5Tget_size(type) == 2 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32, file_bytes);
    part.starts = place_of(starts, H5T_NATIVE_INT64, file_bytes);
    require((starts.size == 0) == (tokens.size == 0) && starts.size <= tokens.size,
            "{} has {} documents but {} tokens", group_of(split), starts.size, tokens.size);
    return {stored_checksum(tokens, tokens_path(split)), stored_checksum(starts, starts_path(split))};
}

constexpr std::pair<TokenizerKind, const char*> named_kinds[] = {
    {TokenizerKind::sentencepiece, "sentencepiece"},
    {TokenizerKind::hf_json, "hf_json"},
    {TokenizerKind::none, "none"}};

TokenizerKind kind_of(const std::string& name) {
    for (const auto& [kind, its_name] : named_kinds)
        if (name == its_name) return kind;
    fail("its attribute `tokenizer_kind` is not sentencepiece, hf_json or none");
}

std::string read_model(hid_t file) {
    const OpenDataset dataset = open_dataset(file, tokenizer_path, {1});
    require(dataset.size <= longest_tokenizer, "{} has {} bytes (at most {} are read)", tokenizer_path,
            dataset.size, longest_tokenizer);
    std::string model(dataset.size, '\0');
    read_range(dataset.handle, H5T_NATIVE_UINT8, 0, model.size(), model.data());
    return model;
}

void read_attributes(hid_t file, TokenFileInfo& info) {
    const Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    require(says_token_file(root), "its attribute `format` is missing or is not `{}`", format_name);
    info.format_version = hdf5::integer_attribute(root, "format_version");
    require(info.format_version >= oldest_version && info.format_version <= version,
            "it has format version {}, this program reads {} to {}", info.format_version, oldest_version,
            version);
    info.vocab_size = hdf5::integer_attribute(root, "vocab_size", 1, largest_vocabulary);
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
}

void check_tokenizer(const TokenFileInfo& info) {
    require(info.begin_token != info.end_token, "its begin token {} is its end token", info.begin_token);
    const bool made_elsewhere = info.tokenizer_kind == TokenizerKind::none;
    require(!made_elsewhere || info.tokenizer_model.empty(),
            "it holds the bytes of a tokenizer, but its attribute `tokenizer_kind` is none");
    require(made_elsewhere || checksum_bytes(info.tokenizer_model) == info.tokenizer_fingerprint,
            "its tokenizer does not fit the tokenizer fingerprint");
}

TokenFileFacts read_facts(hid_t file) {
    TokenFileFacts facts;
    TokenFileInfo& info = facts.info;
    read_attributes(file, info);
    hsize_t file_bytes = 0;
    SWITCHYARD_HDF5(H5Fget_filesize(file, &file_bytes));
    const SplitChecksums training = read_part(file, TokenSplit::training, file_bytes, facts.parts[0]),
                         validation = read_part(file, TokenSplit::validation, file_bytes, facts.parts[1]);
    facts.count();
    info.tokenizer_model = read_model(file);
    require(fingerprint(training, validation) == info.fingerprint,
            "its fingerprint does not fit its checksums");
    check_tokenizer(info);
    return facts;
}

}  // namespace

void TokenFileFacts::count() {
    info.num_tokens = static_cast<std::int64_t>(parts[0].tokens.size);
    info.num_validation_tokens = static_cast<std::int64_t>(parts[1].tokens.size);
    info.num_documents = static_cast<std::int64_t>(parts[0].starts.size);
    info.num_validation_documents = static_cast<std::int64_t>(parts[1].starts.size);
}

TokenFileFacts read_token_facts(const std::string& path) {
    const Handle file = open_file(path);
    try {
        TokenFileFacts facts = read_facts(file);
        facts.file_bytes = size_of_file(open_regular(path), path);
        return facts;
    } catch (const UnreadableError&) {
        throw;
    } catch (const UserError& problem) {
        fail(
            "`{}` is not an intact token file: {} (training needs one); make it with `switchyard tokenize`, "
            "or look at it with `switchyard verify`",
            path, problem.what());
    }
}

const char* name_of(TokenizerKind wanted) {
    for (const auto& [kind, name] : named_kinds)
        if (kind == wanted) return name;
    return "?";
}

}  // namespace switchyard

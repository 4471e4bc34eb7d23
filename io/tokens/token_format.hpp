// Layout of a token file, shared by its writer, its reader and its verifier. Private to io/.
// /training and /validation hold `tokens` (uint16 or uint32) and `document_starts` (int64); /tokenizer/model
// (uint8); /sources (a table; not in version 1). Attributes of "/" say the rest; version 2 brought
// `begin_token` and `tokenizer_kind`.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/rng.hpp"
#include "io/files/hdf5.hpp"
#include "io/tokens/token_file.hpp"

namespace switchyard::token_format {

inline constexpr const char* format_name = "switchyard token file";
inline constexpr std::int64_t oldest_version = 1, version = 2;
inline constexpr hsize_t chunk_elements = 16384;  // a random sample reads one or two chunks
inline constexpr hsize_t block_elements = 16 * chunk_elements;  // of what is read or written whole, at a time
inline constexpr const char* tokenizer_path = "/tokenizer/model";
inline constexpr const char* sources_path = "/sources";
inline constexpr std::uint64_t longest_tokenizer = 256 << 20;  // bytes of its model

inline const char* group_of(TokenSplit split) {
    return split == TokenSplit::training ? "/training" : "/validation";
}
inline const char* name_of(TokenSplit split) {
    return split == TokenSplit::training ? "training" : "validation";
}
inline std::string tokens_path(TokenSplit split) {
    return std::string(group_of(split)) + "/tokens";
}
inline std::string starts_path(TokenSplit split) {
    return std::string(group_of(split)) + "/document_starts";
}

/// Term of element `index` in a dataset's attribute `checksum`, the sum of all terms modulo 2^64 (as in
/// checkpoints).
constexpr std::uint64_t checksum_term(std::uint64_t index, std::uint64_t bits) {
    return mix64(index * 0x9E3779B97F4A7C15ull + bits);
}

std::uint64_t checksum_bytes(const std::string& bytes);

struct SplitChecksums {
    std::uint64_t tokens = 0, starts = 0;
};
/// The fingerprint of all tokens and boundaries: a digest of the four checksums in file order.
std::uint64_t fingerprint(const SplitChecksums& training, const SplitChecksums& validation);

void write_attribute(hid_t object, const char* name, std::int64_t value);
void write_attribute(hid_t object, const char* name, std::uint64_t value);
void write_attribute(hid_t object, const char* name, double value);
void write_attribute(hid_t object, const char* name, const std::string& value);  // fixed length

/// The table of sources, with a checksum over its rows. Reading throws UserError where the rows do not match
/// it.
void write_sources(hid_t file, const std::vector<TokenSource>&);
std::vector<TokenSource> read_sources(hid_t file);  // empty without such a table

bool says_token_file(hid_t root);

struct OpenDataset {
    hdf5::Handle handle;
    std::uint64_t size = 0;
};
/// Opens a dataset. Throws UserError unless it is one-dimensional, holds integers of one of these sizes and
/// lies inside the file.
OpenDataset open_dataset(hid_t file, const std::string& path,
                         std::initializer_list<std::size_t> element_bytes);

/// Number of elements of a one-dimensional dataset.
std::uint64_t extent(hid_t dataset);
/// Elements [begin, begin + count) of a one-dimensional dataset as `type`. Throws UserError where they are
/// not stored.
void read_range(hid_t dataset, hid_t type, std::uint64_t begin, std::uint64_t count, void* out);

}  // namespace switchyard::token_format

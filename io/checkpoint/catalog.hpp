// Catalog: everything a checkpoint file holds except the values of its datasets, read by one rank with serial
// HDF5. A digest over all of it is an attribute of the file: what is missing or was changed is found even
// where HDF5 has no checksum of its own. Private to io/.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/hdf5.hpp"

namespace switchyard {

inline constexpr const char* checksum_key = "checksum";        // of a dataset
inline constexpr const char* digest_key = "catalog_checksum";  // of "/"

struct StoredDataset {
    DType dtype = DType::f32;
    std::vector<std::int64_t> shape;
    std::uint64_t offset = 0;  // of its first byte in the file
    std::optional<std::uint64_t> checksum;

    std::int64_t size() const;
    std::uint64_t bytes() const { return static_cast<std::uint64_t>(size()) * size_of(dtype); }
};

struct Catalog {
    std::map<std::string, std::map<std::string, Attribute>>
        attributes;  // every group and dataset has an entry
    std::map<std::string, StoredDataset> datasets;
    std::optional<std::uint64_t> digest;  // as stored in the file
    std::uint64_t file_bytes = 0;
    std::uint64_t end_of_contents = 0;  // where HDF5 says that the file ends
};

/// The digest covers objects, attributes, shapes, types and checksums, but not places in the file.
std::uint64_t digest_of(const Catalog&);

/// Throws UserError naming the file when it is missing, truncated or damaged, or holds what no checkpoint
/// holds.
Catalog read_catalog(const std::string& path);
/// Throws UserError unless the digest is there and matches, and the file is as long as HDF5 says.
void check_catalog(const Catalog&, const std::string& path);

/// The catalog as bytes to be sent to other ranks, and back.
std::string to_bytes(const Catalog&);
Catalog catalog_from_bytes(const std::string&);

void write_attribute(hid_t object, const std::string& key, const Attribute&);
void write_checksum(hid_t object, const char* key, std::uint64_t);
hid_t file_type(DType);

}  // namespace switchyard

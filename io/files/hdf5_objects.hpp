// Checks objects of HDF5 files of unknown origin. A file must contain its own objects, each under one name,
// and all the values that it declares. Links and storage that lead out of the file are refused before they
// are followed. Private to io/.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "io/files/hdf5.hpp"

namespace switchyard::hdf5 {

/// One name in a group. `object` is equal for two names of one object.
struct Link {
    std::string name, object;
};
/// The names in a group, in the order of the file. Throws UserError for a name that leads elsewhere (soft,
/// external, user-defined), for an object that is already in `seen`, and for more names than any file of ours
/// has.
std::vector<Link> links_of(hid_t group, std::set<std::string>& seen);

/// The names of the attributes of an object, with a bound on their number.
std::vector<std::string> attributes_of(hid_t object);

/// Opens `path`, in which every name must be a hard link. Throws UserError.
Handle open_object(hid_t file, const std::string& path);

/// The shape of a dataset. Throws UserError unless it has 1 to `most_dimensions` extents whose product fits
/// into 62 bits, and its values lie in the file itself, contiguous or in chunks of at most 64 MiB with
/// filters that come with HDF5 (deflate, shuffle, fletcher32), in enough bytes.
std::vector<std::uint64_t> checked_shape(hid_t dataset, int most_dimensions, std::uint64_t file_bytes,
                                         std::size_t most_element_bytes = 8);

/// Throws UserError if a chunk in [begin, begin + count) of a one-dimensional dataset was never written; HDF5
/// would return zeros for it.
void require_stored(hid_t dataset, std::uint64_t begin, std::uint64_t count);

}  // namespace switchyard::hdf5

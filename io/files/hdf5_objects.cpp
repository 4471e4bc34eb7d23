// Links and storage are examined before HDF5 follows them. Iterations are bounded, because crafted metadata
// may have loops.
#include "io/files/hdf5_objects.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace switchyard::hdf5 {
namespace {

constexpr std::size_t most_links = 1 << 20, most_link_bytes = 64 << 20, most_attributes = 4096;
constexpr std::uint64_t most_chunk_bytes = 64 << 20;
constexpr std::uint64_t most_deflated = 1040;  // deflate expands one byte to at most 1032 bytes

struct Found {
    std::vector<Link> links;
    std::size_t bytes = 0;
    std::string outside;  // a name that leads out of the file; empty: none
};

herr_t take_link(hid_t, const char* name, const H5L_info_t* info, void* data) {
    auto& found = *static_cast<Found*>(data);
    if (info->type != H5L_TYPE_HARD) {
        found.outside = name;
        return 1;
    }
    const haddr_t& object = info->u.address;
    found.links.push_back({name, std::string(reinterpret_cast<const char*>(&object), sizeof object)});
    found.bytes += found.links.back().name.size();
    return found.links.size() > most_links || found.bytes > most_link_bytes;
}

herr_t take_attribute(hid_t, const char* name, const H5A_info_t*, void* data) {
    auto& names = *static_cast<std::vector<std::string>*>(data);
    names.emplace_back(name);
    return names.size() > most_attributes;
}

/// Checks that layout and filters of a dataset keep its values in the file. Returns how many bytes one stored
/// byte may expand to.
std::uint64_t check_storage(hid_t creation, std::size_t element_bytes) {
    const H5D_layout_t layout = H5Pget_layout(creation);
    require(layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT,
            "its values are those of other files (a virtual dataset)");
    require(H5Pget_external_count(creation) == 0, "its values are in another file (external storage)");
    if (layout != H5D_CHUNKED) return 1;
    hsize_t chunk[H5S_MAX_RANK] = {};
    const int rank = H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
    std::uint64_t bytes = element_bytes;
    for (int i = 0; i < rank; ++i)
        require(!__builtin_mul_overflow(bytes, chunk[i], &bytes) && bytes <= most_chunk_bytes,
                "its chunks have more than {} bytes", most_chunk_bytes);
    std::uint64_t expansion = 1;
    for (int i = 0, filters = H5Pget_nfilters(creation); i < filters; ++i) {
        unsigned flags = 0, config = 0;
        std::size_t values = 0;
        const H5Z_filter_t filter =
            H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &config);
        require(
            filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE || filter == H5Z_FILTER_FLETCHER32,
            "it is stored with filter {}, which is not read here", static_cast<int>(filter));
        if (filter == H5Z_FILTER_DEFLATE) expansion *= most_deflated;
    }
    require(expansion <= most_deflated, "it is compressed twice");
    return expansion;
}

}  // namespace

std::vector<Link> links_of(hid_t group, std::set<std::string>& seen) {
    Found found;
    hsize_t position = 0;
    // In native order: for any other, HDF5 1.10.8 builds a table and, on damaged metadata, frees it half
    // filled.
    SWITCHYARD_HDF5(H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &position, take_link, &found));
    require(found.outside.empty(),
            "its name {} is a link to elsewhere (only what the file itself holds is read)", found.outside);
    require(found.links.size() <= most_links && found.bytes <= most_link_bytes,
            "it holds more than {} objects", most_links);
    for (const Link& link : found.links) {
        require(!link.name.empty() && link.name != "." && link.name.find('/') == std::string::npos,
                "its object \"{}\" has a name that is none", link.name);
        require(seen.insert(link.object).second, "its object {} has another name already", link.name);
        require(seen.size() <= most_links, "the file holds more than {} objects", most_links);
    }
    return found.links;
}

std::vector<std::string> attributes_of(hid_t object) {
    std::vector<std::string> names;
    hsize_t position = 0;
    SWITCHYARD_HDF5(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, &position, take_attribute, &names));
    require(names.size() <= most_attributes, "it has more than {} attributes", most_attributes);
    return names;
}

Handle open_object(hid_t file, const std::string& path) {
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
        const std::string part = path.substr(0, end);
        if (part.size() > 1) {
            H5L_info_t info;
            SWITCHYARD_HDF5(H5Lget_info(file, part.c_str(), &info, H5P_DEFAULT));
            require(info.type == H5L_TYPE_HARD,
                    "{} is a link to elsewhere (only what the file itself holds is read)", part);
        }
        if (end == std::string::npos) break;
    }
    return {H5Oopen(file, path.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen"};
}

std::vector<std::uint64_t> checked_shape(hid_t dataset, int most_dimensions, std::uint64_t file_bytes,
                                         std::size_t most_element_bytes) {
    require(H5Iget_type(dataset) == H5I_DATASET, "it is not a dataset");
    const Handle type(H5Dget_type(dataset), H5Tclose, "H5Dget_type");
    const std::size_t element = H5Tget_size(type);
    require(element > 0 && element <= most_element_bytes, "its values have {} bytes each", element);
    const Handle creation(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
    const std::uint64_t expansion =
        check_storage(creation, element);  // before H5Dget_space(), which opens files for a virtual dataset
    const Handle space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    const int rank = H5Sget_simple_extent_ndims(space);
    require(rank >= 1 && rank <= most_dimensions, "it has {} dimensions", rank);
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    SWITCHYARD_HDF5(H5Sget_simple_extent_dims(space, extents.data(), nullptr));
    std::uint64_t bytes = element;
    const bool empty = std::find(extents.begin(), extents.end(), 0u) != extents.end();
    for (const hsize_t extent : extents)
        require(
            extent < std::uint64_t{1} << 62 &&
                (empty || (!__builtin_mul_overflow(bytes, extent, &bytes) && bytes < std::uint64_t{1} << 62)),
            "it has more values than can be counted");
    if (!empty)
        require(bytes / expansion <= file_bytes, "its values need {} bytes, the file has {}", bytes,
                file_bytes);
    return {extents.begin(), extents.end()};
}

void require_stored(hid_t dataset, std::uint64_t begin, std::uint64_t count) {
    const Handle creation(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
    if (count == 0 || H5Pget_layout(creation) != H5D_CHUNKED) {
        require(count == 0 || H5Dget_storage_size(dataset) > 0, "its values were never written");
        return;
    }
    hsize_t chunk = 0;
    require(H5Pget_chunk(creation, 1, &chunk) == 1 && chunk > 0, "it is not one-dimensional");
    for (hsize_t at = begin / chunk * chunk; at < begin + count; at += chunk) {
        hsize_t bytes = 0;  // some releases return 0 here, others an error
        const bool found = H5Dget_chunk_storage_size(dataset, &at, &bytes) >= 0 && bytes > 0;
        H5Eclear2(H5E_DEFAULT);
        require(found, "its values from {} on were never written", at);
    }
}

}  // namespace switchyard::hdf5

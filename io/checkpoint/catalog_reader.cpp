// Reading the structure of a file with HDF5. Whatever a damaged or crafted file makes HDF5 return becomes a
// UserError, and nothing outside the file is followed.
#include "core/error.hpp"
#include "io/checkpoint/catalog.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/files/hdf5_objects.hpp"
#include "io/files/structure_reader.hpp"

namespace switchyard {
namespace {

using hdf5::Handle;

constexpr int deepest_group = 16;
constexpr std::size_t most_text_bytes = 256 << 20;  // of all attributes

DType dtype_of(hid_t type) {
    for (DType dtype : {DType::f32, DType::f64, DType::i16, DType::i32, DType::i64, DType::u8})
        if (H5Tequal(type, file_type(dtype)) > 0) return dtype;
    fail("its type is not one that checkpoints use");
}

StoredDataset read_dataset(hid_t object, std::uint64_t file_bytes) {
    StoredDataset dataset;
    const Handle type(H5Dget_type(object), H5Tclose, "H5Dget_type");
    dataset.dtype = dtype_of(type);
    const std::vector<std::uint64_t> extents = hdf5::checked_shape(object, 2, file_bytes);
    dataset.shape.assign(extents.begin(), extents.end());
    const Handle creation(H5Dget_create_plist(object), H5Pclose, "H5Dget_create_plist");
    const haddr_t offset = H5Dget_offset(object);
    require<UnreadableError>(H5Pget_layout(creation) != H5D_CHUNKED,
                             "another tool repacked the file in chunks, compressed perhaps (values are read "
                             "where they lie); unpack it: h5repack -f NONE -l CONTI FILE NEW");
    require(H5Pget_layout(creation) == H5D_CONTIGUOUS && (dataset.size() == 0 || offset != HADDR_UNDEF),
            "its values have no place in the file");
    dataset.offset = dataset.size() == 0 ? 0 : offset;
    return dataset;
}

Attribute read_attribute(hid_t object, const std::string& key) {
    switch (hdf5::attribute_kind(object, key)) {
        case hdf5::AttributeKind::integer:
            return hdf5::integer_attribute(object, key);
        case hdf5::AttributeKind::real:
            return hdf5::real_attribute(object, key);
        case hdf5::AttributeKind::text:
            return hdf5::text_attribute(object, key);
        case hdf5::AttributeKind::word:
            break;
    }
    fail("attribute {} has a type that checkpoints do not use", key);
}

/// A walk over all objects of a file.
class Walk {
  public:
    Walk(hid_t file, Catalog& catalog) : file_(file), catalog_(catalog) {}

    void object(const std::string& path, int depth) {
        try {
            read(path, depth);
        } catch (const UnreadableError& error) {
            throw UnreadableError(with_path(path, error));
        } catch (const UserError& error) {
            throw UserError(with_path(path, error));
        }
    }

  private:
    /// The error with the path of the innermost object in front.
    static std::string with_path(const std::string& path, const std::exception& error) {
        const std::string text = error.what();
        return text.starts_with('/') ? text : path + ": " + text;
    }

    void read(const std::string& path, int depth) {
        require(depth <= deepest_group, "groups are nested too deeply");
        const Handle object(H5Oopen(file_, path.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
        const bool is_dataset = H5Iget_type(object) == H5I_DATASET;
        require(is_dataset || H5Iget_type(object) == H5I_GROUP, "it is neither a group nor a dataset");
        if (is_dataset) catalog_.datasets[path] = read_dataset(object, catalog_.file_bytes);
        read_attributes(object, path, is_dataset);
        if (is_dataset) return;
        for (const hdf5::Link& link : hdf5::links_of(object, seen_))
            this->object((path == "/" ? path : path + "/") + link.name, depth + 1);
    }

    void read_attributes(hid_t object, const std::string& path, bool is_dataset) {
        auto& attributes = catalog_.attributes[path];
        for (const std::string& key : hdf5::attributes_of(object)) {
            if (is_dataset && key == checksum_key)
                catalog_.datasets[path].checksum = hdf5::word_attribute(object, key);
            else if (path == "/" && key == digest_key)
                catalog_.digest = hdf5::word_attribute(object, key);
            else
                keep(attributes[key] = read_attribute(object, key));
        }
    }

    void keep(const Attribute& value) {
        if (const auto* text = std::get_if<std::string>(&value)) text_bytes_ += text->size();
        require(text_bytes_ <= most_text_bytes, "the attributes hold more than {} bytes of text",
                most_text_bytes);
    }

    hid_t file_;
    Catalog& catalog_;
    std::set<std::string> seen_;
    std::size_t text_bytes_ = 0;
};

Catalog read_here(const std::string& path) {
    const auto told = [&](const std::exception& error) {
        return fmt::format("cannot read {} as a checkpoint ({})", path, error.what());
    };
    Catalog catalog;
    catalog.file_bytes = size_of_file(open_regular(path), path);
    try {
        const Handle file = hdf5::open_file(path);
        haddr_t end = 0;
        SWITCHYARD_HDF5(H5Fget_eoa(file, &end));
        catalog.end_of_contents = end;
        Walk(file, catalog).object("/", 0);
        for (const auto& [name, dataset] : catalog.datasets)
            require(dataset.offset <= catalog.file_bytes &&
                        dataset.bytes() <= catalog.file_bytes - dataset.offset,
                    "dataset {} reaches beyond the end of the file", name);
        return catalog;
    } catch (const UnreadableError& error) {
        throw UnreadableError(told(error) + "; the file may be whole");
    } catch (const UserError& error) {
        throw UserError(told(error) + "; it is damaged, incomplete or of another kind");
    }
}

std::string catalog_bytes(const std::string& path) {
    return to_bytes(read_here(path));
}

const RegisterStructureReader registered("checkpoint", catalog_bytes);

}  // namespace

Catalog read_catalog(const std::string& path) {
    return catalog_from_bytes(read_structure("checkpoint", path, catalog_bytes));
}

}  // namespace switchyard

// The HDF5 structure of a checkpoint, made in memory: groups, datasets without values, attributes. HDF5 gives
// every dataset its place and never touches the file system, so no failure of that reaches the library, and
// what it made goes to the file by plain writes. One rank has it. Private to io/.
#pragma once

#include <cstdint>
#include <string>

#include "io/checkpoint/catalog.hpp"
#include "io/checkpoint/structure_memory.hpp"

namespace switchyard {

class StructureFile {
  public:
    /// expected_bytes: roughly what the structure needs, which becomes one block at the beginning of the
    /// file.
    explicit StructureFile(std::uint64_t expected_bytes);

    /// `object`: "/" or a group or dataset path such as "/data"; groups are made as needed. The last value of
    /// a key counts.
    void attribute(const std::string& object, const std::string& key, const Attribute& value);
    /// `dtype` as stored. Returns the byte of the file at which its values begin; 0 where it has none.
    std::uint64_t add_dataset(const std::string& path, const Shape& shape, DType dtype);
    void set_checksum(const std::string& path, std::uint64_t checksum);

    /// Adds checksums and digest, and ends the structure. Returns the bytes of the whole file.
    std::uint64_t finish();
    /// After finish(): everything that is not a value, to where it belongs in `fd`. Throws UserError.
    void write_to(int fd) const;

  private:
    void make_group(const std::string& group);

    StructureMemory memory_;
    hdf5::Handle file_;  // of memory_
    Catalog catalog_;    // what was asked for, to which the digest belongs
};

}  // namespace switchyard

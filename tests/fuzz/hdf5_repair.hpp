// Repairs the checksums of HDF5 metadata after a change, as the maker of a crafted file would.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::fuzz {

/// Jenkins' lookup3 hash of the bytes, as HDF5 uses it.
std::uint32_t lookup3(const unsigned char* bytes, std::size_t count);

/// A block of metadata; its checksum comes after its last byte.
struct SealedBlock {
    std::size_t at = 0, bytes = 0;
};
/// The blocks of an intact file: superblock, object headers, nodes of B-trees, heaps and arrays.
std::vector<SealedBlock> sealed_blocks(const std::string& file);

/// Repairs the checksums of the blocks, and that of an object header whose length was changed.
void repair_checksums(std::string& file, const std::vector<SealedBlock>& blocks);

}  // namespace switchyard::fuzz

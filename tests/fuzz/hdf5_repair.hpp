// Checksums of HDF5 metadata made right again after a change: what a crafted file has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::fuzz {

/// Jenkins' lookup3 of the bytes, as HDF5 uses it.
std::uint32_t lookup3(const unsigned char* bytes, std::size_t count);

/// A block of metadata: its checksum stands behind its last byte.
struct SealedBlock {
    std::size_t at = 0, bytes = 0;
};
/// Those of an intact file: superblock, object headers, nodes of B-trees, heaps and arrays.
std::vector<SealedBlock> sealed_blocks(const std::string& file);

/// Makes the checksums of the blocks right, and that of an object header whose length was changed.
void repair_checksums(std::string& file, const std::vector<SealedBlock>& blocks);

}  // namespace switchyard::fuzz

// A file of HDF5 that is memory: no limit of file sizes, full disk or name concerns it, so HDF5 can always
// close it. (A file that it could not close ends the process when the library is shut down.) Only pages that
// were written take room. Private to io/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "io/checkpoint/part.hpp"
#include "io/files/hdf5.hpp"

namespace switchyard {

class StructureMemory {
  public:
    StructureMemory() = default;
    StructureMemory(const StructureMemory&) = delete;
    StructureMemory& operator=(const StructureMemory&) = delete;

    /// A file that is created with this property list lies in this memory, which must outlive it.
    void use_for(hid_t access);

    std::uint64_t size() const { return size_; }
    void resize(std::uint64_t bytes) { size_ = bytes; }
    void clear();
    void write(std::uint64_t at, const std::byte* from, std::size_t bytes);
    /// Bytes that were never written are zero.
    void read(std::uint64_t at, std::byte* to, std::size_t bytes) const;
    /// The parts of `range` that lie on pages that were written.
    std::vector<ByteRange> written(ByteRange range) const;

  private:
    static constexpr std::size_t page_bytes = 4096;
    using Page = std::array<std::byte, page_bytes>;

    std::map<std::uint64_t, std::unique_ptr<Page>> pages_;  // by number
    std::uint64_t size_ = 0;
};

}  // namespace switchyard

// All ranks' rectangular parts of one matrix to and from one contiguous range of a file. Parts are exchanged
// between ranks so that each byte of the file is touched by one rank, in long runs; writes are POSIX calls
// whose every result is checked. No MPI-IO: Open MPI 4.1's (and with it parallel HDF5) reports success for
// failed collective writes, or leaves the other ranks waiting (measured with EIO on one rank: OMPIO
// dynamic_gen2, two_phase and ROMIO). Private to io/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "core/tensor.hpp"

namespace switchyard {

struct Part {
    std::int64_t row0 = 0, rows = 0, col0 = 0, cols = 0;
    bool empty() const { return rows == 0 || cols == 0; }
    std::int64_t area() const { return rows * cols; }
};

struct FileArray {
    int fd = -1;
    std::uint64_t offset = 0;  // of the first element, bytes
    std::int64_t rows = 0, cols = 0;
    std::size_t element_bytes = 0;
};

/// Fills, or takes, packed (count, part.cols) values of the caller's part, rows [first, first + count) of the
/// part. Called once per row of the part, in any order of blocks.
using FillRows = std::function<void(std::int64_t first, std::int64_t count, std::byte* to)>;
using TakeRows = std::function<void(std::int64_t first, std::int64_t count, const std::byte* from)>;

/// Collective; `parts` (of all ranks, in rank order) do not overlap and cover the array, or are whole rows
/// each. Returns this rank's first error, empty if none: to be agreed on by the caller.
std::string write_parts(const Comm&, const std::vector<Part>& parts, const FileArray&, const FillRows&);

/// Collective; parts may overlap (replicas). Each byte is read by one rank and sent to those that want it.
std::string read_parts(const Comm&, const std::vector<Part>& parts, const FileArray&, const TakeRows&);

}  // namespace switchyard

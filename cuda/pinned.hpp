// Host memory that the device reads and writes by itself. Each use has a fixed size, whatever the model, and
// keeps it to the end of the process: the driver may have ended before destructors run.
#pragma once

#include <cstddef>

namespace switchyard::cuda {

inline constexpr std::size_t pinned_for_uploads = std::size_t{16} << 20;
inline constexpr std::size_t pinned_for_downloads = std::size_t{8} << 20;
/// For collectives that go through the host.
inline constexpr std::size_t pinned_for_messages = std::size_t{32} << 20;

/// `purpose` is for the message when there is none: "uploads".
std::byte* pinned_memory(std::size_t bytes, const char* purpose);

}  // namespace switchyard::cuda

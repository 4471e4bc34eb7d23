// Memory for tensors: large blocks ask for large pages, which systems often give only on request. A step
// walks through all of it, and most of its strides exceed a small page.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "core/call_counts.hpp"

namespace switchyard {

/// At least `bytes` bytes, aligned to 64, or null; released by std::free.
inline std::byte* allocate_memory(std::size_t bytes) {
    count_call(Call::allocation);
    constexpr std::size_t line = 64, large_page = std::size_t{1} << 21;
    const std::size_t alignment = bytes >= 2 * large_page ? large_page : line;
    bytes = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, bytes);
#ifdef MADV_HUGEPAGE
    if (memory && alignment == large_page) ::madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<std::byte*>(memory);
}

}  // namespace switchyard

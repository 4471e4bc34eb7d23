// Scratch of the CPU back end: one growable buffer per thread and purpose, kept between calls so that its
// pages stay mapped. Contents are undefined on entry; a purpose must not be asked for again while its buffer
// is in use.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/large_memory.hpp"

namespace switchyard::kernels {

enum class ScratchUse { product, widened, turned, attention, attention_parts, factor };

/// At least `bytes` bytes, aligned to 64, of the calling thread.
inline std::byte* thread_scratch(ScratchUse use, std::size_t bytes) {
    struct Free {
        void operator()(std::byte* p) const { std::free(p); }
    };
    struct Buffer {
        std::unique_ptr<std::byte, Free> memory;
        std::size_t capacity = 0;
    };
    thread_local Buffer buffers[6];
    Buffer& buffer = buffers[static_cast<int>(use)];
    if (buffer.capacity < bytes || !buffer.memory) {
        const std::size_t capacity = (bytes + 4095) / 4096 * 4096 + 4096;
        buffer.memory.reset();
        buffer.memory.reset(allocate_memory(capacity));
        buffer.capacity = buffer.memory ? capacity : 0;
        if (!buffer.memory) throw std::bad_alloc();
    }
    return buffer.memory.get();
}

}  // namespace switchyard::kernels

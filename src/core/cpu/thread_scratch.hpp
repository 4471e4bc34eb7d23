// Scratch of the CPU back end beside what callers hand to a kernel: one growable buffer per thread and
// purpose, kept between calls so that its pages stay mapped. Contents are undefined on entry; a purpose must
// not be asked for again while its buffer is in use.
#pragma once

#include <cstddef>

namespace switchyard::kernels {

enum class ScratchUse { product, widened, transposed, factor, statistics };

/// At least `bytes` bytes, aligned to 64, of the calling thread. Throws std::bad_alloc.
std::byte* thread_scratch(ScratchUse use, std::size_t bytes);

/// Before a parallel region: every thread of it will get that many bytes without an allocation, so that none
/// fails within. Throws std::bad_alloc. Inside a region it serves the calling thread alone.
void reserve_thread_scratch(ScratchUse use, std::size_t bytes);

}  // namespace switchyard::kernels

// Scratch memory of the CPU back end besides what callers hand to a kernel: one growing buffer per thread and
// purpose, kept between calls so that its pages stay mapped. Its content is undefined on entry. A purpose
// must not be requested again while its buffer is in use.
#pragma once

#include <cstddef>

namespace switchyard::kernels {

enum class ScratchUse { product, widened, transposed, factor, statistics };

/// At least `bytes` bytes of the calling thread, aligned to 64. Throws std::bad_alloc.
std::byte* thread_scratch(ScratchUse use, std::size_t bytes);

/// To be called before a parallel region: every thread of the region then gets this many bytes without an
/// allocation, so that none fails inside. Throws std::bad_alloc. Inside a region it affects the calling
/// thread only.
void reserve_thread_scratch(ScratchUse use, std::size_t bytes);

}  // namespace switchyard::kernels

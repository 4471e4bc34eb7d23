// Buffers never shrink, so that nothing is allocated after the first step of a run.
#include "core/cpu/thread_scratch.hpp"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <new>

#include "core/backend_memory.hpp"
#include "core/first_exception.hpp"

namespace switchyard::kernels {
namespace {

constexpr int num_uses = 5;

struct Release {
    void operator()(std::byte* p) const { backend::release(p); }
};
struct Buffer {
    std::unique_ptr<std::byte, Release> memory;
    std::size_t capacity = 0;
};

struct Reserved {
    std::size_t bytes = 0;  // of each of the first `threads` threads
    int threads = 0;
};

}  // namespace

std::byte* thread_scratch(ScratchUse use, std::size_t bytes) {
    thread_local Buffer buffers[num_uses];
    Buffer& buffer = buffers[static_cast<int>(use)];
    if (buffer.capacity < bytes || !buffer.memory) {
        const std::size_t capacity = (bytes + 4095) / 4096 * 4096 + 4096;
        buffer.memory.reset();
        buffer.memory.reset(backend::allocate(capacity));
        buffer.capacity = buffer.memory ? capacity : 0;
        if (!buffer.memory) throw std::bad_alloc();
    }
    return buffer.memory.get();
}

void reserve_thread_scratch(ScratchUse use, std::size_t bytes) {
    if (omp_in_parallel()) {
        thread_scratch(use, bytes);
        return;
    }
    static Reserved reserved[num_uses];
    Reserved& all = reserved[static_cast<int>(use)];
    const int threads = omp_get_max_threads();
    if (all.bytes >= bytes && all.threads >= threads) return;
    bytes = std::max(bytes, all.bytes);
    FirstException failure;
#pragma omp parallel
    failure.guard([&] { thread_scratch(use, bytes); });
    failure.rethrow();
    all = {bytes, std::max(threads, all.threads)};
}

}  // namespace switchyard::kernels

// The memory of the CPU back end is the node's. Large blocks ask for large pages (many systems give them on
// request only), because a step walks through all of its memory and most strides exceed a small page.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "core/backend_memory.hpp"
#include "core/calls.hpp"
#include "core/host.hpp"
#include "core/host_memory.hpp"
#include "core/memory_blocks.hpp"
#include "core/shared_loop.hpp"

namespace switchyard::backend {
namespace {

constexpr std::size_t line = 64, large_page = std::size_t{1} << 21;
constexpr std::int64_t cleared_block =
    16384;  // bytes that one thread clears at a time: a kernel's block of f32

MemoryBlocks& blocks() {
    static auto* const all =
        new MemoryBlocks;  // never destroyed: the scratch of other threads may live longer
    return *all;
}

double status_bytes(const std::string& key) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == key) {
            double kib = 0;
            status >> kib;
            return 1024 * kib;
        }
    return 0;
}

}  // namespace

std::size_t alignment() {
    return line;
}

std::byte* allocate(std::size_t bytes) {
    count_call(Call::allocation);
    const std::size_t boundary = bytes >= 2 * large_page ? large_page : line;
    if (boundary == large_page) bytes = (bytes + boundary - 1) / boundary * boundary;
    void* memory = nullptr;
    if (::posix_memalign(&memory, boundary, std::max<std::size_t>(bytes, 1)) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
    if (boundary == large_page) ::madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    blocks().add(memory, bytes);
    return static_cast<std::byte*>(memory);
}

void release(std::byte* memory) noexcept {
    blocks().remove(memory);
    std::free(memory);
}

void clear(std::byte* start, std::size_t bytes) {
    const auto size = static_cast<std::int64_t>(bytes), count = (size + cleared_block - 1) / cleared_block;
    for_shared(count, count > 4, [=](std::int64_t b) {
        std::memset(start + b * cleared_block, 0,
                    static_cast<std::size_t>(std::min(cleared_block, size - b * cleared_block)));
    });
}

Pool pool() {
    return {host_name(), available_bytes(), host_name()};
}

double used_bytes() {
    return status_bytes("VmRSS:");
}

double peak_used_bytes() {
    return status_bytes("VmHWM:");
}

void reset_peak_used_bytes() {
    std::ofstream("/proc/self/clear_refs") << "5";
}

std::size_t pinned_bytes(int) {
    return 0;
}

std::size_t used_pinned_bytes() {
    return 0;
}

bool owns(const void* start, std::size_t bytes) {
    return blocks().own(start, bytes);
}

}  // namespace switchyard::backend

#include "block_resources.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "device_memory.hpp"
#include "sanitizers.hpp"

namespace emulation {
namespace {

constexpr std::size_t stack_bytes = 64 << 10, shared_alignment = 128;

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
/// Of a launch. ThreadSanitizer would take another block's use of the same bytes for a race, so with it they
/// are kept until the launch ends.
struct Blocks {
    std::vector<std::unique_ptr<unsigned char, Free>> shared;
    std::vector<std::unique_ptr<OrderPlaces>> places;
};
Blocks of_launch;

unsigned char *stacks = nullptr, *shared = nullptr, *shared_end = nullptr;
std::size_t mapped_bytes = 0;

unsigned char* map(std::size_t bytes) {
    void* memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) error(Where::current(), "no memory for the threads of a block");
    return static_cast<unsigned char*>(memory);
}

void close_page(unsigned char* start) {
    if (::mprotect(start, page_bytes(), PROT_NONE) != 0)
        error(Where::current(), "a page cannot be closed (the system allows too few mappings)");
}

/// With ThreadSanitizer stacks are mapped anew for each block, or their use by another thread looks like a
/// race.
void provide_stacks(unsigned threads) {
    if (stacks && !with_thread_sanitizer()) return;
    if (stacks) ::munmap(stacks, mapped_bytes);
    mapped_bytes = (with_thread_sanitizer() ? threads : most_threads) * stack_bytes;
    stacks = map(mapped_bytes);
    if (with_thread_sanitizer()) return;
    for (unsigned i = 0; i < most_threads; ++i) close_page(stacks + i * stack_bytes);
}

void provide_shared(std::size_t bytes) {
    if (!with_sanitizer()) {
        const std::size_t most = (most_shared_bytes + page_bytes() - 1) / page_bytes() * page_bytes();
        if (!shared_end) {
            shared_end = map(most + page_bytes()) + most;
            close_page(shared_end);
        }
        shared = shared_end - (bytes + shared_alignment - 1) / shared_alignment * shared_alignment;
    } else if (with_thread_sanitizer() || of_launch.shared.empty()) {
        void* memory = nullptr;
        if (::posix_memalign(&memory, shared_alignment, bytes) != 0)
            error(Where::current(), "no memory for %zu bytes of shared memory", bytes);
        of_launch.shared.emplace_back(shared = static_cast<unsigned char*>(memory));
    }
    std::memset(shared, 0xFF, bytes);
}

}  // namespace

void provide_block(unsigned threads, std::size_t shared_bytes) {
    provide_stacks(threads);
    provide_shared(shared_bytes);
    if (with_thread_sanitizer()) of_launch.places.push_back(std::make_unique_for_overwrite<OrderPlaces>());
}

void end_of_blocks() {
    of_launch = {};
}

unsigned char* stack_start(unsigned thread) {
    return stacks + thread * stack_bytes + page_bytes();
}

std::size_t stack_length(unsigned thread) {
    // Of different lengths: tops at equal distances would meet in the same sets of the caches.
    return stack_bytes - page_bytes() - thread % 61 * 320;
}

unsigned char* shared_start() {
    return shared;
}

OrderPlaces* order_places() {
    return of_launch.places.empty() ? nullptr : of_launch.places.back().get();
}

const char* overrun_at(const void* address) {
    const auto* at = static_cast<const unsigned char*>(address);
    if (shared_end && at >= shared_end && at < shared_end + page_bytes()) return "its block's shared memory";
    if (stacks && at >= stacks && at < stacks + mapped_bytes &&
        static_cast<std::size_t>(at - stacks) % stack_bytes < page_bytes())
        return "its stack: the emulation has 60 KiB for a thread's variables";
    return nullptr;
}

}  // namespace emulation

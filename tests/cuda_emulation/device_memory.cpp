#include "device_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "faults.hpp"
#include "sanitizers.hpp"

namespace emulation {
namespace {

constexpr std::size_t alignment = 256;

struct Block {
    std::size_t bytes = 0;
    unsigned char* mapping = nullptr;  // null: an allocation of exactly these bytes
    std::size_t mapped_bytes = 0;      // without the page that nobody can touch
};
std::map<const unsigned char*, Block>& blocks() {
    static auto* const all = new std::map<const unsigned char*, Block>;
    return *all;
}
/// Blocks that were released while work was waiting, which may touch them.
std::vector<std::pair<const unsigned char*, Block>>& released() {
    static auto* const all = new std::vector<std::pair<const unsigned char*, Block>>;
    return *all;
}
std::size_t in_use = 0;
int opened = 0;
bool closed = true;
int left_open = 0;  // times since it was closed last

/// Each change of protection interrupts the other threads of the process. CUDA_EMULATION_OPEN=n closes the
/// memory after every n-th time that it was open; where the host reads it again and again, that is found all
/// the same.
int times_left_open() {
    static const char* const text = std::getenv("CUDA_EMULATION_OPEN");
    static const int times = text ? std::atoi(text) : 1;
    return times;
}

void protect(const Block& block, int protection) {
    if (block.mapping && ::mprotect(block.mapping, block.mapped_bytes, protection) != 0) std::abort();
}

/// Bytes 0xFF, NaNs of every type, in place of what is mapped at `start`: private mappings of one file, again
/// and again, which cost nothing until they are touched. Most of the 32 MiB that products get for themselves
/// never is.
void map_nans(unsigned char* start, std::size_t bytes) {
    static const int file = ::memfd_create("device memory", MFD_CLOEXEC);
    static std::size_t length = 0;
    static const std::vector<unsigned char> nans(std::size_t{1} << 20, 0xFF);
    constexpr std::size_t most = std::size_t{16} << 20;  // which takes memory of its own
    for (; length < std::min(bytes, most); length += nans.size())
        if (::pwrite(file, nans.data(), nans.size(), static_cast<off_t>(length)) !=
            static_cast<ssize_t>(nans.size()))
            std::abort();
    for (std::size_t at = 0; at < bytes; at += most)
        if (::mmap(start + at, std::min(bytes - at, most), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, file, 0) == MAP_FAILED)
            std::abort();
}

}  // namespace

std::size_t page_bytes() {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
}

void* allocate_device(std::size_t bytes) {
    explain_faults();
    Block block{bytes, nullptr, 0};
    void* start = nullptr;
    if (with_sanitizer()) {
        if (::posix_memalign(&start, alignment, bytes) != 0) return nullptr;
        std::memset(start, 0xFF, bytes);
    } else {
        const std::size_t page = page_bytes();
        const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
        block.mapped_bytes = (rounded + page - 1) / page * page;
        void* mapping = ::mmap(nullptr, block.mapped_bytes + page, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping == MAP_FAILED) return nullptr;
        block.mapping = static_cast<unsigned char*>(mapping);
        map_nans(block.mapping, block.mapped_bytes);
        start = block.mapping + block.mapped_bytes - rounded;
    }
    if (closed) protect(block, PROT_NONE);
    blocks()[static_cast<unsigned char*>(start)] = block;
    in_use += bytes;
    return start;
}

bool release_device(void* start, bool keep_address) {
    const auto found = blocks().find(static_cast<unsigned char*>(start));
    if (found == blocks().end()) return false;
    in_use -= found->second.bytes;
    if (found->second.mapping && keep_address) {
        if (::mmap(found->second.mapping, found->second.mapped_bytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
            std::abort();
        released().push_back(*found);
    } else if (found->second.mapping)
        ::munmap(found->second.mapping, found->second.mapped_bytes + page_bytes());
    else
        std::free(start);
    blocks().erase(found);
    return true;
}

bool is_device_memory(const void* start, std::size_t bytes) {
    const auto* first = static_cast<const unsigned char*>(start);
    auto found = blocks().upper_bound(first);
    if (found == blocks().begin()) return false;
    --found;
    return first + bytes <= found->first + found->second.bytes;
}

BadAddress what_is_at(const void* address) {
    const auto* at = static_cast<const unsigned char*>(address);
    for (const auto& [start, block] : blocks()) {
        if (!block.mapping || at < block.mapping) continue;
        if (at < block.mapping + block.mapped_bytes + page_bytes())
            return {start, block.bytes, at - start, at < start || at >= start + block.bytes};
    }
    for (const auto& [start, block] : released())
        if (at >= block.mapping && at < block.mapping + block.mapped_bytes)
            return {start, block.bytes, at - start, false, true};
    return {};
}

std::size_t device_bytes_in_use() {
    return in_use;
}

void set_device(void* start, int value, std::size_t bytes) {
    auto* const first = static_cast<unsigned char*>(start);
    constexpr std::size_t worth_a_mapping = std::size_t{1} << 20;
    const bool maps =
        value == 0 && bytes >= worth_a_mapping && !with_sanitizer() && is_device_memory(first, bytes);
    const std::size_t head = maps ? -reinterpret_cast<std::uintptr_t>(first) % page_bytes() : bytes,
                      pages = (bytes - head) / page_bytes() * page_bytes();
    std::memset(first, value, head);
    std::memset(first + head + pages, value, bytes - head - pages);
    if (pages > 0 && ::mmap(first + head, pages, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        std::abort();
}

OpenMemory::OpenMemory() {
    if (opened++ > 0 || !closed) return;
    closed = false;
    for (const auto& [start, block] : blocks()) protect(block, PROT_READ | PROT_WRITE);
}

OpenMemory::~OpenMemory() {
    if (--opened > 0 || ++left_open < times_left_open()) return;
    closed = true;
    left_open = 0;
    for (const auto& [start, block] : blocks()) protect(block, PROT_NONE);
}

}  // namespace emulation

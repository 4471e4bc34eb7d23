// Blocks begin with a signature of four letters. The length of a block is found by trying where its checksum
// fits.
#include "fuzz/hdf5_repair.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

namespace switchyard::fuzz {
namespace {

std::uint32_t rotated(std::uint32_t x, int bits) {
    return x << bits | x >> (32 - bits);
}

std::uint64_t number(const std::string& file, std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    if (at + bytes <= file.size()) std::memcpy(&value, file.data() + at, bytes);
    return value;
}

/// Writes the checksum of [at, at + count) after it.
void seal(std::string& file, std::size_t at, std::size_t count) {
    if (count < 4 || at + count + 4 > file.size() || count > file.size()) return;
    const std::uint32_t sum = lookup3(reinterpret_cast<const unsigned char*>(file.data()) + at, count);
    std::memcpy(file.data() + at + count, &sum, sizeof sum);
}

/// Length in bytes of an object header's prefix and first chunk, without the checksum.
std::size_t object_header_bytes(const std::string& file, std::size_t at) {
    const std::uint64_t flags = number(file, at + 5, 1);
    std::size_t size = 6;
    if (flags & 0x20) size += 16;
    if (flags & 0x10) size += 4;
    const std::size_t width = std::size_t{1} << (flags & 3);
    return size + width + number(file, at + size, width);
}

}  // namespace

std::uint32_t lookup3(const unsigned char* k, std::size_t length) {
    std::uint32_t a, b, c;
    a = b = c = 0xDEADBEEFu + static_cast<std::uint32_t>(length);
    const auto word = [&](std::size_t at) {
        return std::uint32_t{k[at]} | std::uint32_t{k[at + 1]} << 8 | std::uint32_t{k[at + 2]} << 16 |
               std::uint32_t{k[at + 3]} << 24;
    };
    for (; length > 12; length -= 12, k += 12) {
        a += word(0), b += word(4), c += word(8);
        a -= c, a ^= rotated(c, 4), c += b;
        b -= a, b ^= rotated(a, 6), a += c;
        c -= b, c ^= rotated(b, 8), b += a;
        a -= c, a ^= rotated(c, 16), c += b;
        b -= a, b ^= rotated(a, 19), a += c;
        c -= b, c ^= rotated(b, 4), b += a;
    }
    if (length == 0) return c;
    unsigned char last[12] = {};
    std::memcpy(last, k, length);
    k = last;
    a += word(0), b += word(4), c += word(8);
    c ^= b, c -= rotated(b, 14);
    a ^= c, a -= rotated(c, 11);
    b ^= a, b -= rotated(a, 25);
    c ^= b, c -= rotated(b, 16);
    a ^= c, a -= rotated(c, 4);
    b ^= a, b -= rotated(a, 14);
    c ^= b, c -= rotated(b, 24);
    return c;
}

std::vector<SealedBlock> sealed_blocks(const std::string& file) {
    constexpr std::size_t longest = 4096;
    constexpr std::string_view signatures[] = {"\x89HDF", "OHDR", "OCHK", "BTHD", "BTLF",
                                               "BTIN",    "FRHP", "FHDB", "FHIB", "EAHD",
                                               "EAIB",    "EASB", "EADB", "FAHD", "FADB"};
    const auto* bytes = reinterpret_cast<const unsigned char*>(file.data());
    std::vector<SealedBlock> blocks;
    for (std::size_t at = 0; at + 8 < file.size(); ++at) {
        const std::string_view signature(file.data() + at, 4);
        if (std::find(std::begin(signatures), std::end(signatures), signature) == std::end(signatures))
            continue;
        for (std::size_t count = 8; count <= longest && at + count + 4 <= file.size(); ++count)
            if (number(file, at + count, 4) == lookup3(bytes + at, count)) {
                blocks.push_back({at, count});
                break;
            }
    }
    return blocks;
}

void repair_checksums(std::string& file, const std::vector<SealedBlock>& blocks) {
    for (const SealedBlock& block : blocks) {
        if (block.at + 8 > file.size()) continue;
        seal(file, block.at, block.bytes);
        if (file.compare(block.at, 4, "OHDR") == 0) seal(file, block.at, object_header_bytes(file, block.at));
    }
}

}  // namespace switchyard::fuzz

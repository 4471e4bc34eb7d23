// Makes inputs for a fuzz target from a seed, for machines without libFuzzer. The n-th input depends on
// target, seed and n alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::fuzz {

/// One of the files with one to eight changes: bits, bytes, numbers at the ends of their ranges, words, parts
/// of other files, ranges that are doubled, moved or left out.
std::string mutated(const std::vector<std::string>& files, const std::vector<std::string>& words,
                    std::uint64_t seed, std::uint64_t n);

}  // namespace switchyard::fuzz

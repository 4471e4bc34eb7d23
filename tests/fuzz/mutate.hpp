// Inputs for a fuzz target from a seed, for machines without libFuzzer: the n-th input is a pure function of
// target, seed and n.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::fuzz {

/// One of the files, changed in one to eight places: bits, bytes, numbers at the ends of their ranges, words,
/// parts of other files, ranges doubled, moved or left out.
std::string mutated(const std::vector<std::string>& files, const std::vector<std::string>& words,
                    std::uint64_t seed, std::uint64_t n);

}  // namespace switchyard::fuzz

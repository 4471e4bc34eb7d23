// What the files of targets share: their folder, and checks of what must be true.
#pragma once

#include <string>
#include <vector>

#include "fuzz/targets.hpp"

namespace switchyard::fuzz {

/// The folder of this process, which is removed at its end.
const std::string& folder();
/// Writes a file of that name in the folder; returns its path.
std::string file_of(const std::string& name, const std::string& bytes);

inline void expect(bool condition, const std::string& otherwise) {
    if (!condition) throw FuzzFailure(otherwise);
}

std::vector<Target> text_targets();
std::vector<Target> hdf5_targets();

}  // namespace switchyard::fuzz

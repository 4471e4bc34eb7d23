// A file in the file system of the run, written and read by all ranks at once.
#pragma once

#include "selftest/setting.hpp"

namespace switchyard::selftest {

/// Ranks write blocks of io.window bytes in turn into one temporary file, as a save does, sync it, and read
/// each other's. Every byte is compared with what belongs there. The file lies in run.dir or, as long as that
/// does not exist, in the nearest folder above it, and is removed. One line for writing and one for reading,
/// which is missing where nothing could be written.
std::vector<Line> file_lines(const Setting&);

/// The folder that a file for run.dir = `directory` would be tried in: the nearest one that exists.
std::string nearest_folder(const std::string& directory);

/// All ranks together, B/s: below this rate a save of any model takes too long.
inline constexpr double least_file_rate = 0.05e9;

}  // namespace switchyard::selftest

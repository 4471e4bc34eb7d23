// Parsing in a process of its own. HDF5 (1.10.8, say) can read past the end of its memory, or never end, on a
// structure that was changed together with its checksums; so the program reads the structure of a file of
// unknown origin in a child, and a child that dies or does not end means that the file is damaged. Values are
// read by POSIX calls, or after the structure was found sound. Private to io/.
#pragma once

#include <functional>
#include <string>

namespace switchyard {

/// What the child does with a path; the bytes that it returns, or the UserError that it throws, are the
/// parent's.
using StructureReader = std::function<std::string(const std::string& path)>;

/// Calls `read` on `path`, in a child once main() has asked serve_structure(), in this process otherwise
/// (tests of the library). `name`: how the child finds the same function. Throws what it throws; UserError
/// where the child crashed or took more than structure_limit_s of processor time.
std::string read_structure(const char* name, const std::string& path, const StructureReader& read);
inline constexpr int structure_limit_s = 8;

/// From main(), before anything else: where the words ask for it this process is such a child, does its work
/// and returns true with its exit code; elsewhere children are to be started from now on.
bool serve_structure(int argc, char** argv, int& exit_code);

/// A function that a child can be asked for; by objects of static storage duration.
struct RegisterStructureReader {
    RegisterStructureReader(const char* name, StructureReader read);
};

}  // namespace switchyard

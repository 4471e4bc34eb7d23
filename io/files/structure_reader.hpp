// Parses the structure of a file in a separate process. HDF5 (1.10.8, for example) can read past the end of
// its memory, or never end, if a structure was changed together with its checksums. Therefore the structure
// of a file of unknown origin is read in a child; a child that dies or does not end means that the file is
// damaged. Values are read by POSIX calls, or after the structure was found to be sound. Private to io/.
#pragma once

#include <functional>
#include <string>

namespace switchyard {

/// What the child does with a path. The returned bytes, or the UserError thrown, are passed to the parent.
using StructureReader = std::function<std::string(const std::string& path)>;

/// Calls `read` on `path`: in a child if main() has called serve_structure(), otherwise (tests of the
/// library) in this process. `name` tells the child which function to call. Throws what `read` throws, and
/// UserError if the child crashed or used more than structure_limit_s of processor time.
std::string read_structure(const char* name, const std::string& path, const StructureReader& read);
inline constexpr int structure_limit_s = 8;

/// main() calls this first. If the arguments ask for it, this process is such a child: it does its work and
/// returns true with its exit code. Otherwise structures are read in children from now on.
bool serve_structure(int argc, char** argv, int& exit_code);

/// Registers a function that a child can call. To be used for objects of static storage duration.
struct RegisterStructureReader {
    RegisterStructureReader(const char* name, StructureReader read);
};

}  // namespace switchyard

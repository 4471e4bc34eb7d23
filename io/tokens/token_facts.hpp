// TokenFileFacts: what the structure of a token file says, and where its values lie. One process reads it
// with HDF5 for all that use the file; the others get it as bytes and need no HDF5 for it. Private to io/.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "io/tokens/token_file.hpp"

namespace switchyard {

/// Where the values of a one-dimensional dataset are.
struct ValuePlace {
    std::uint64_t size = 0, element_bytes = 0;
    /// Byte of the file at which they begin, if they are contiguous and of the type that memory has; empty:
    /// HDF5 must read them.
    std::optional<std::uint64_t> offset;
};

struct TokenFileFacts {
    struct Part {
        ValuePlace tokens, starts;
    };
    TokenFileInfo info;
    std::uint64_t file_bytes = 0;
    std::array<Part, 2> parts;  // training, validation

    /// Sets the numbers of tokens and documents in `info` from the parts.
    void count();
    const Part& part(TokenSplit split) const { return parts[split == TokenSplit::training ? 0 : 1]; }
};

/// Reads and checks the structure in this process. Throws UserError like the constructor of TokenFile.
TokenFileFacts read_token_facts(const std::string& path);

/// The same from a child process, which reads all of the structure (io/files/structure_reader.hpp), as bytes
/// to be sent to other ranks.
std::string examine_token_file(const std::string& path);
TokenFileFacts token_facts_from_bytes(const std::string&);

}  // namespace switchyard

// TokenFileFacts: what the structure of a token file says, and where its values lie. It is read with HDF5 by
// one process for all that use the file: what others get are bytes, which hold nothing to be parsed with
// HDF5. Private to io/.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "io/tokens/token_file.hpp"

namespace switchyard {

/// The values of a one-dimensional dataset.
struct ValuePlace {
    std::uint64_t size = 0, element_bytes = 0;
    /// Of the first one in the file, where they lie one behind the other as memory has them; none: in chunks,
    /// or of another type, and HDF5 must read them.
    std::optional<std::uint64_t> offset;
};

struct TokenFileFacts {
    struct Part {
        ValuePlace tokens, starts;
    };
    TokenFileInfo info;
    std::uint64_t file_bytes = 0;
    std::array<Part, 2> parts;  // training, validation

    /// Numbers of tokens and documents in `info`, from the parts.
    void count();
    const Part& part(TokenSplit split) const { return parts[split == TokenSplit::training ? 0 : 1]; }
};

/// Reads and checks the structure in this process. Throws UserError as the constructor of TokenFile.
TokenFileFacts read_token_facts(const std::string& path);

/// The same in a child process, all of the structure walked (io/files/structure_reader.hpp); as bytes, for
/// sending to other ranks.
std::string examine_token_file(const std::string& path);
TokenFileFacts token_facts_from_bytes(const std::string&);

}  // namespace switchyard

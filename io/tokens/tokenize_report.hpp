// The messages of tokenize: warnings on standard error, and remarks that are returned to the caller. Private
// to io/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/tokens/given_tokenizer.hpp"
#include "io/tokens/round_trip.hpp"
#include "io/tokens/text_source.hpp"
#include "io/tokens/tokenize.hpp"

namespace switchyard {

struct TokenizeFindings {
    const TextSource& source;
    const RoundTrip& round_trip;
    std::int64_t num_unknown = 0, num_tokens = 0;
};

/// Warns of everything that differs between the inputs and the token file.
void warn(const TokenizeFindings&);

/// The format of each input, the begin and end token, and whether text comes back from its tokens.
std::vector<std::string> remarks(const TokenizeOptions&, const TokenizeFindings&, const GivenTokenizer&,
                                 const Tokenizer&);

}  // namespace switchyard

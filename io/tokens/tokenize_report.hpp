// What tokenize says of its work: warnings on standard error, remarks for whoever shows the result. Private
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

/// Of everything that is not in the token file as it was in the inputs.
void warn(const TokenizeFindings&);

/// How each input was read, what documents begin and end with, and whether text comes back.
std::vector<std::string> remarks(const TokenizeOptions&, const TokenizeFindings&, const GivenTokenizer&,
                                 const Tokenizer&);

}  // namespace switchyard

// Segments of text to ids, in parallel, so that a document cut into segments has the ids of the whole.
// Private to io/.
#pragma once

#include <cstdint>
#include <vector>

#include "io/tokens/text_source.hpp"
#include "io/tokens/tokenizer.hpp"

namespace switchyard {

/// How a document cut into segments is put together again: found by trying it on the model at hand.
struct CutBehaviour {
    std::size_t newline_skip =
        0;  // leading ids to drop of a segment that begins with "\n" (a model's dummy space)
    bool drop_space = false;  // the dummy space stands for a space at the cut
};

CutBehaviour probe_cuts(const Tokenizer&);

/// Ids of a segment; the first `skip` of them are not part of the document.
struct Encoded {
    std::vector<std::int32_t> ids;
    std::size_t skip = 0;
};

/// With all OpenMP threads; in the order of the segments.
std::vector<Encoded> encode_batch(const Tokenizer&, const std::vector<TextSegment>&, const CutBehaviour&);

}  // namespace switchyard

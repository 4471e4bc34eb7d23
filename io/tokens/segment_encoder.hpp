// Encodes segments of text in parallel such that a document cut into segments has the ids of the whole
// document. Private to io/.
#pragma once

#include <cstdint>
#include <vector>

#include "io/tokens/text_source.hpp"
#include "io/tokens/tokenizer.hpp"

namespace switchyard {

/// How the ids of segments are joined, which is found by trying the model.
struct CutBehaviour {
    std::size_t newline_skip =
        0;  // number of leading ids to drop from a segment that begins with "\n" (a model's dummy space)
    bool drop_space = false;  // the dummy space replaces a space at the cut
};

CutBehaviour probe_cuts(const Tokenizer&);

/// The ids of a segment; the first `skip` do not belong to the document.
struct Encoded {
    std::vector<std::int32_t> ids;
    std::size_t skip = 0;
};

/// Uses all OpenMP threads; results are in the order of the segments.
std::vector<Encoded> encode_batch(const Tokenizer&, const std::vector<TextSegment>&, const CutBehaviour&);

}  // namespace switchyard

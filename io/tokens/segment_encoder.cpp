// How a tokenizer behaves at a cut is found by trying it on short texts.
#include "io/tokens/segment_encoder.hpp"

#include <algorithm>

#include "core/shared_loop.hpp"

namespace switchyard {

CutBehaviour probe_cuts(const Tokenizer& tokenizer) {
    CutBehaviour cuts;
    const auto joined = [&](std::vector<std::int32_t> head, const std::string& tail, std::size_t skip) {
        const auto ids = tokenizer.encode(tail);
        if (ids.size() >= skip)
            head.insert(head.end(), ids.begin() + static_cast<std::ptrdiff_t>(skip), ids.end());
        return head;
    };
    const auto head = tokenizer.encode("a");
    if (joined(head, "\na", 0) != tokenizer.encode("a\na") &&
        joined(head, "\na", 1) == tokenizer.encode("a\na")) {
        cuts.newline_skip = 1;
    }
    cuts.drop_space = joined(head, "a", 0) == tokenizer.encode("a a");
    return cuts;
}

std::vector<Encoded> encode_batch(const Tokenizer& tokenizer, const std::vector<TextSegment>& batch,
                                  const CutBehaviour& cuts) {
    std::vector<Encoded> encoded(batch.size());
    for_in_turns(static_cast<std::int64_t>(batch.size()), true, [&](std::int64_t number) {
        const auto i = static_cast<std::size_t>(number);
        encoded[i].ids = tokenizer.encode(batch[i].text);
        const bool cut_at_line = !batch[i].starts_document && batch[i].text.starts_with('\n');
        encoded[i].skip = cut_at_line ? std::min(cuts.newline_skip, encoded[i].ids.size()) : 0;
    });
    return encoded;
}

}  // namespace switchyard

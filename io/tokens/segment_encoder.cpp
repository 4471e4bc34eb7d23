// How a tokenizer behaves at a cut is found by trying it on short texts.
#include "io/tokens/segment_encoder.hpp"

#include <algorithm>

#include "core/first_exception.hpp"

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
    FirstException failure;
#pragma omp parallel for schedule(dynamic, 4)
    for (std::size_t i = 0; i < batch.size(); ++i)
        failure.guard([&] {
            encoded[i].ids = tokenizer.encode(batch[i].text);
            const bool cut_at_line = !batch[i].starts_document && batch[i].text.starts_with('\n');
            encoded[i].skip = cut_at_line ? std::min(cuts.newline_skip, encoded[i].ids.size()) : 0;
        });
    failure.rethrow();
    return encoded;
}

}  // namespace switchyard

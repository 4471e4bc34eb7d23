// RoundTrip: finds what a tokenizer loses of a text by comparing decode(encode(x)) with x over the first
// megabyte. Models like T5's drop line ends and runs of spaces silently. Private to io/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokens/tokenizer.hpp"

namespace switchyard {

class RoundTrip {
  public:
    /// `ids` are those of `text`. Has no effect after the first megabyte.
    void add(const Tokenizer&, const std::string& text, const std::vector<std::int32_t>& ids);

    bool exact() const { return num_changed_ == 0; }
    /// A sentence for the user about what was lost.
    std::string sentence() const;

  private:
    struct Loss {
        std::int64_t lost = 0, all = 0;
    };
    void compare(std::string_view text, std::string_view back);

    std::uint64_t bytes_ = 0;
    std::int64_t num_texts_ = 0, num_changed_ = 0;
    std::map<std::string, std::int64_t, std::less<>> lost_;  // character -> how often it was lost
    Loss line_ends_, tabs_, spaces_, others_;
};

}  // namespace switchyard

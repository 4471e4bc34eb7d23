// Losses are counted by character, independent of position: a character that a text has more often than its
// copy is lost.
#include "io/tokens/round_trip.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/utf8.hpp"
#include "io/files/strict_json.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {
namespace {

constexpr std::uint64_t sample_bytes = 1 << 20;
constexpr std::size_t most_shown = 5;

using Counts = std::map<std::string, std::int64_t, std::less<>>;

Counts characters_of(std::string_view text) {
    Counts counts;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = std::max<std::size_t>(utf8_at(text, i).bytes, 1);
        const std::string_view character = text.substr(i, length);
        const auto known = counts.find(character);
        known != counts.end() ? void(++known->second) : void(counts.emplace(character, 1));
        i += length;
    }
    return counts;
}

}  // namespace

void RoundTrip::add(const Tokenizer& tokenizer, const std::string& text,
                    const std::vector<std::int32_t>& ids) {
    if (bytes_ >= sample_bytes) return;
    bytes_ += text.size();
    ++num_texts_;
    const std::string back = tokenizer.decode(ids);
    num_changed_ += back != text;
    compare(text, back);
}

void RoundTrip::compare(std::string_view text, std::string_view back) {
    const Counts before = characters_of(text), after = text == back ? before : characters_of(back);
    for (const auto& [character, count] : before) {
        const auto kept = after.find(character);
        const std::int64_t lost = std::max<std::int64_t>(count - (kept == after.end() ? 0 : kept->second), 0);
        Loss& loss = character == "\n"   ? line_ends_
                     : character == "\t" ? tabs_
                     : character == " "  ? spaces_
                                         : others_;
        loss.all += count;
        loss.lost += lost;
        if (&loss == &others_ && lost > 0) lost_[character] += lost;
    }
}

std::string RoundTrip::sentence() const {
    const double megabytes = static_cast<double>(bytes_) * 1e-6;
    if (exact())
        return fmt::format("the first {:.2f} MB come back from their tokens as they were", megabytes);
    std::vector<std::string> parts;
    const auto add = [&](const Loss& loss, const char* what) {
        if (loss.lost > 0) parts.push_back(fmt::format("{} of {} {}", loss.lost, loss.all, what));
    };
    add(line_ends_, "line ends");
    add(tabs_, "tabs");
    add(spaces_, "spaces");
    add(others_, "other characters");
    if (!lost_.empty()) {
        std::vector<std::pair<std::int64_t, std::string>> often;
        for (const auto& [character, count] : lost_) often.emplace_back(-count, quoted(character));
        std::sort(often.begin(), often.end());
        std::vector<std::string> shown;
        for (std::size_t i = 0; i < std::min(most_shown, often.size()); ++i) shown.push_back(often[i].second);
        parts.back() +=
            fmt::format(" ({}{})", fmt::join(shown, " "), often.size() > most_shown ? " ..." : "");
    }
    return fmt::format(
        "{} of {} texts in the first {:.2f} MB do not come back from their tokens as they were: lost are {}",
        num_changed_, num_texts_, megabytes,
        parts.empty() ? "only places, no characters" : fmt::format("{}", fmt::join(parts, ", ")));
}

}  // namespace switchyard

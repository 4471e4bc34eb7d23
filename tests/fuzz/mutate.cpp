// Draws are hashes of a counter, so no generator state is kept from input to input.
#include "fuzz/mutate.hpp"

#include <algorithm>
#include <cstring>

#include "core/rng.hpp"

namespace switchyard::fuzz {
namespace {

constexpr std::size_t longest_input = 1 << 20;

class Draw {
  public:
    Draw(std::uint64_t seed, std::uint64_t n) : state_(mix64(seed ^ mix64(n + 1))) {}
    std::uint64_t bits() { return mix64(state_ += 0x9E3779B97F4A7C15ull); }
    std::size_t below(std::size_t bound) { return bound == 0 ? 0 : static_cast<std::size_t>(bits() % bound); }

  private:
    std::uint64_t state_;
};

/// A number that programs forget about: 0, 1, -1, the ends of ranges, powers of two and their neighbours.
std::string odd_number(Draw& draw) {
    const std::uint64_t power = std::uint64_t{1} << draw.below(64);
    const std::uint64_t values[] = {0,         1,      ~std::uint64_t{0}, power, power - 1,
                                    power + 1, ~power, draw.bits() % 300};
    const std::uint64_t value = values[draw.below(std::size(values))];
    if (draw.below(4) == 0) return std::to_string(static_cast<std::int64_t>(value));
    std::string bytes(std::size_t{1} << draw.below(4), '\0');
    std::memcpy(bytes.data(), &value, bytes.size());
    return bytes;
}

void overwrite(std::string& text, std::size_t at, const std::string& part) {
    text.replace(at, std::min(part.size(), text.size() - at), part);
}

void change(std::string& text, const std::vector<std::string>& files, const std::vector<std::string>& words,
            Draw& draw) {
    const std::size_t at = draw.below(text.size() + 1), rest = text.size() - at;
    const std::size_t count = std::min(rest, std::size_t{1} << draw.below(12));
    const std::string& other = files[draw.below(files.size())];
    switch (draw.below(9)) {
        case 0:
            if (rest > 0) text[at] = static_cast<char>(text[at] ^ (1 << draw.below(8)));
            break;
        case 1:
            if (rest > 0) text[at] = static_cast<char>(draw.bits());
            break;
        case 2:
            overwrite(text, at, odd_number(draw));
            break;
        case 3:
            text.insert(at, odd_number(draw));
            break;
        case 4:
            text.erase(at, count);
            break;
        case 5:
            text.insert(draw.below(text.size() + 1), text.substr(at, count));
            break;
        case 6:
            if (!words.empty()) text.insert(at, words[draw.below(words.size())]);
            break;
        case 7:
            if (!words.empty()) overwrite(text, at, words[draw.below(words.size())]);
            break;
        default:
            overwrite(text, at, other.substr(draw.below(other.size()), count));
    }
}

}  // namespace

std::string mutated(const std::vector<std::string>& files, const std::vector<std::string>& words,
                    std::uint64_t seed, std::uint64_t n) {
    Draw draw(seed, n);
    std::string text = files[draw.below(files.size())];
    for (std::size_t changes = 1 + draw.below(8); changes > 0; --changes) change(text, files, words, draw);
    text.resize(std::min(text.size(), longest_input));
    return text;
}

}  // namespace switchyard::fuzz

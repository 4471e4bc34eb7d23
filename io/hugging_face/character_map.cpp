// The trie has the format of Darts-clone: a unit holds a label, a leaf mark and an offset; its children are
// at (own position xor offset) xor label. It comes from a file of unknown origin, so the walk checks bounds.
#include "io/hugging_face/character_map.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "core/error.hpp"
#include "core/utf8.hpp"

namespace switchyard {
namespace {

using Strings = std::set<std::u32string>;
using Characters = std::set<char32_t>;

[[noreturn]] void damaged() {
    fail(
        "the normalisation rules of the SentencePiece model are damaged (its trie leads out of itself); give "
        "another copy of the model, or --no_tokenizer to leave it out");
}

class Trie {
  public:
    explicit Trie(const std::string& compiled) {
        std::uint32_t bytes = 0;
        if (compiled.size() < sizeof(bytes)) damaged();
        std::memcpy(&bytes, compiled.data(), sizeof(bytes));
        if (bytes % 4 != 0 || bytes > compiled.size() - sizeof(bytes)) damaged();
        units_.resize(bytes / 4);
        std::memcpy(units_.data(), compiled.data() + sizeof(bytes), bytes);
        right_sides_ = compiled.substr(sizeof(bytes) + bytes);
    }

    void collect(CharacterMap& rules) const {
        std::string key;
        std::size_t budget = max_nodes;
        if (!units_.empty()) walk(0, key, rules, budget);
    }

  private:
    static constexpr std::size_t max_nodes = 4'000'000, max_key_bytes = 64;

    void walk(std::size_t node, std::string& key, CharacterMap& rules, std::size_t& budget) const {
        if (budget-- == 0 || key.size() > max_key_bytes) damaged();
        const std::uint32_t unit = units_[node];
        const std::size_t children = node ^ ((unit >> 10) << ((unit & (1u << 9)) >> 6));
        if ((unit >> 8 & 1) != 0) {
            if (children >= units_.size()) damaged();
            const std::size_t begin = units_[children] & 0x7FFFFFFF, end = right_sides_.find('\0', begin);
            if (begin > right_sides_.size() || end == std::string::npos) damaged();
            rules[utf32_of(key)] = utf32_of(right_sides_.substr(begin, end - begin));
        }
        for (std::uint32_t label = 1; label < 256; ++label) {
            const std::size_t child = children ^ label;
            if (child >= units_.size() || (units_[child] & 0x800000FF) != label) continue;
            key.push_back(static_cast<char>(label));
            walk(child, key, rules, budget);
            key.pop_back();
        }
    }

    std::vector<std::uint32_t> units_;
    std::string right_sides_;
};

/// A regular expression [\x{300}-\x{304}...] for these characters, with `more` at the front.
std::string class_of(const Characters& characters, const char* more = "") {
    std::string text = fmt::format("[{}", more);
    for (auto it = characters.begin(); it != characters.end();) {
        const char32_t first = *it;
        char32_t last = first;
        for (++it; it != characters.end() && *it == last + 1; ++it) last = *it;
        text += fmt::format("\\x{{{:X}}}", static_cast<std::uint32_t>(first));
        if (last != first)
            text +=
                fmt::format("{}\\x{{{:X}}}", last > first + 1 ? "-" : "", static_cast<std::uint32_t>(last));
    }
    return text + "]";
}

/// A regular expression for strings of one length. Characters that follow the same starts are put into one
/// class.
std::string expression_of(const Strings& strings) {
    if (strings.begin()->size() == 1) {
        Characters all;
        for (const auto& s : strings) all.insert(s[0]);
        return class_of(all);
    }
    std::map<char32_t, Strings> before;
    for (const auto& s : strings) before[s.back()].insert(s.substr(0, s.size() - 1));
    std::map<Strings, Characters> groups;
    for (const auto& [last, starts] : before) groups[starts].insert(last);
    std::string text;
    for (const auto& [starts, lasts] : groups)
        text += (text.empty() ? "" : "|") + expression_of(starts) + class_of(lasts);
    return groups.size() == 1 ? text : "(?:" + text + ")";
}

/// A negative lookbehind. Its alternatives may differ in length at the top level only.
std::string not_behind(const Strings& strings) {
    std::map<std::size_t, Strings> by_length;
    for (const auto& s : strings) by_length[s.size()].insert(s);
    std::vector<std::string> alternatives;
    for (const auto& [length, alike] : by_length) alternatives.push_back(expression_of(alike));
    return fmt::format("(?<!{})", fmt::join(alternatives, "|"));
}

bool maps(const CharacterMap& rules, const std::u32string& from, const std::u32string& to) {
    const auto rule = rules.find(from);
    return rule != rules.end() && rule->second == to;
}

}  // namespace

CharacterMap read_character_map(const std::string& compiled) {
    CharacterMap rules;
    Trie(compiled).collect(rules);
    return rules;
}

bool composes_characters(const CharacterMap& rules) {
    return maps(rules, U"e\u0301", U"\u00E9") && maps(rules, U"\u1100\u1161", U"\uAC00") &&
           maps(rules, U"\uFB01", U"fi");
}

std::string places_not_joined(const CharacterMap& rules) {
    std::map<char32_t, Strings> joined;  // character -> what must stand before it for a rule to join them
    for (const auto& [left, right] : rules)
        for (std::size_t i = 1; i < left.size(); ++i) joined[left[i]].insert(left.substr(0, i));
    Characters joining, others;  // others: characters that become joining ones
    std::map<Strings, Characters> groups;
    for (const auto& [character, before] : joined) {
        joining.insert(character);
        groups[before].insert(character);
    }
    for (const auto& [left, right] : rules)
        if (left.size() == 1 && !right.empty() && joining.contains(right[0]) && !joining.contains(left[0]))
            others.insert(left[0]);
    Characters all = joining;
    all.insert(others.begin(), others.end());
    std::string text =
        fmt::format("(?<=[\\s\\S])(?={})(?:(?!{})", class_of(all, "\\p{M}"), class_of(joining));
    for (const auto& [before, characters] : groups)
        text += fmt::format("|(?={}){}", class_of(characters), not_behind(before));
    return text + ")";
}

std::u32string utf32_of(const std::string& text) {
    std::u32string result;
    for (std::size_t i = 0; i < text.size();) {
        const Utf8Character character = utf8_at(text, i);
        require(character.bytes > 0,
                "text of the SentencePiece model is not UTF-8 (it is damaged); give another copy of it");
        result.push_back(character.code);
        i += character.bytes;
    }
    return result;
}

}  // namespace switchyard

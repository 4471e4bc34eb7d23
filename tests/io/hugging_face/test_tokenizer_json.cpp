// tokenizer.json for hand-written models, and damaged models. What transformers makes of real models is in
// tests/regression/test_hugging_face_golden.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/hugging_face/character_map.hpp"
#include "io/hugging_face/sentencepiece_model.hpp"
#include "io/hugging_face/tokenizer_json.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using nlohmann::json;
using test::message_of;

std::string varint(std::uint64_t value) {
    std::string text;
    for (; value >= 0x80; value >>= 7) text.push_back(static_cast<char>(value | 0x80));
    return text + static_cast<char>(value);
}
std::string integer(int field, std::uint64_t value) {
    return varint(static_cast<std::uint64_t>(field) << 3) + varint(value);
}
std::string bytes(int field, const std::string& value) {
    return varint(static_cast<std::uint64_t>(field) << 3 | 2) + varint(value.size()) + value;
}
std::string piece(const std::string& text, float score, int kind = 1) {
    std::string number(sizeof(float), '\0');
    std::memcpy(number.data(), &score, sizeof(float));
    return bytes(1,
                 bytes(1, text) + varint(2 << 3 | 5) + number + integer(3, static_cast<std::uint64_t>(kind)));
}

/// Pieces of a byte-pair model after <unk>, <s>, </s>; "abc" can be built in two ways.
std::string pieces() {
    return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("abc", -2) +
           piece("bc", -1) + piece("ab", 0) + piece("a", -3) + piece("b", -4) + piece("c", -5) +
           piece("\u2581", -6);
}
std::string trainer(int algorithm, bool byte_fallback) {
    return bytes(2, integer(3, static_cast<std::uint64_t>(algorithm)) + integer(35, byte_fallback));
}
std::string normalizer(bool dummy, bool strips, const std::string& map = "") {
    return bytes(3, bytes(1, "some") + bytes(2, map) + integer(3, dummy) + integer(4, strips));
}

TEST(TokenizerJson, test_finding_05_byte_pairs_merge_by_score) {
    const TokenizerJson result = tokenizer_json(pieces() + trainer(2, true) + normalizer(true, false), 1);
    EXPECT_EQ(result.differences, std::vector<std::string>());
    const json& model = result.content["model"];
    EXPECT_EQ(model["merges"], json({"a b", "b c", "ab c", "a bc"}));  // sorted by score, then by the left id
    EXPECT_EQ(model["vocab"]["bc"], 4);
    EXPECT_EQ(model["byte_fallback"], true);
    EXPECT_EQ(result.content["normalizer"]["normalizers"].size(), 2u);
    EXPECT_EQ(result.content["normalizer"]["normalizers"][0],
              json({{"type", "Prepend"}, {"prepend", "\u2581"}}));
    EXPECT_EQ(result.content["post_processor"]["special_tokens"]["<s>"]["ids"], json({1}));
    EXPECT_EQ(result.content["added_tokens"].size(), 3u);
    const TokenizerJson bare = tokenizer_json(pieces() + trainer(2, true) + normalizer(false, false), -1);
    EXPECT_EQ(bare.content["normalizer"]["normalizers"].size(), 1u);
    EXPECT_TRUE(bare.content["post_processor"].is_null());
}

TEST(TokenizerJson, test_finding_05_no_text_becomes_a_control_piece_of_a_unigram_model) {
    const TokenizerJson result = tokenizer_json(pieces() + trainer(1, false) + normalizer(true, true), -1);
    const json& vocabulary = result.content["model"]["vocab"];
    EXPECT_EQ(vocabulary[2], json({"</s>", -1000.0}));
    EXPECT_EQ(vocabulary[5], json({"ab", 0.0}));
    EXPECT_EQ(result.content["model"]["unk_id"], 0);
    // "<" is not a piece. Replaced by another unknown character it stays unknown and cannot begin </s>.
    EXPECT_EQ(result.content["normalizer"]["normalizers"].back(),
              json({{"type", "Replace"}, {"pattern", {{"String", "<"}}}, {"content", "\uFFFE"}}));
    const TokenizerJson with_bytes = tokenizer_json(pieces() + trainer(1, true) + normalizer(true, true), -1);
    ASSERT_EQ(with_bytes.differences.size(), 1u);
    EXPECT_CONTAINS(with_bytes.differences[0], "texts that spell one of 3 pieces");
}

TEST(TokenizerJson, test_finding_05_differences_are_named) {
    const std::string settings = trainer(2, true) + normalizer(true, false);
    const auto said = [&](const std::string& more) {
        return tokenizer_json(pieces() + more + settings, -1).differences.at(0);
    };
    EXPECT_CONTAINS(said(piece("<sep>", 0, 4)), "user-defined pieces such as <sep>");
    EXPECT_CONTAINS(said(piece("xy", -7)), "1 pieces that have characters without a piece of their own");
    EXPECT_CONTAINS(said(piece("z", -7, 5)), "1 unused pieces");
    const TokenizerJson words = tokenizer_json(pieces() + trainer(3, false) + normalizer(true, true), -1);
    EXPECT_TRUE(words.content.is_null());
    EXPECT_CONTAINS(words.differences.at(0), "every text");
}

TEST(TokenizerJson, DamagedModelsAreRefused) {
    const std::string whole = pieces() + trainer(2, true) + normalizer(true, false);
    EXPECT_EQ(read_sentencepiece_model(whole).pieces.size(), 10u);
    EXPECT_CONTAINS(
        message_of<UserError>([&] { read_sentencepiece_model(whole.substr(0, whole.size() - 1)); }),
        "damaged");
    EXPECT_CONTAINS(message_of<UserError>(
                        [&] { read_sentencepiece_model("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"); }),
                    "damaged");
    EXPECT_CONTAINS(message_of<UserError>([&] { tokenizer_json(piece("\xFF", 0), -1); }), "not UTF-8");
    EXPECT_CONTAINS(message_of<UserError>([&] { tokenizer_json(whole + piece("q", NAN), -1); }),
                    "not finite");
}

TEST(TokenizerJson, test_finding_24_pieces_that_are_not_utf8_are_refused) {
    const std::string settings = trainer(2, true) + normalizer(true, false);
    const auto expect_refused = [&](std::initializer_list<const char*> texts) {
        for (const std::string text : texts)
            for (const int kind : {1, 3, 4, 5}) {
                const auto write = [&] {
                    tokenizer_json(pieces() + piece("a" + text + "b", -7, kind) + settings, -1);
                };
                EXPECT_CONTAINS(message_of<UserError>(write), "not UTF-8") << testing::PrintToString(text);
            }
    };
    expect_refused({"\xED\xA0\x80", "\xED\xBF\xBF", "\xED\xA0\xBD\xED\xB8\x80"});  // surrogates
    expect_refused({"\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF"});  // overlong
    expect_refused({"\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xE2\x96", "\x80", "\xFF"});
    // The valid characters beside these.
    for (const char* good : {"\xED\x9F\xBF", "\xEE\x80\x80", "\xE0\xA0\x80", "\xF4\x8F\xBF\xBF"})
        EXPECT_NO_THROW(tokenizer_json(pieces() + piece(good, -7) + settings, -1));
}

/// A unit: label, offset of the children (at node xor offset), whether one of them is a leaf's value.
std::uint32_t unit(std::uint32_t label, std::uint32_t offset, bool leaf) {
    return label | offset << 10 | static_cast<std::uint32_t>(leaf) << 8;
}
std::string compiled(const std::vector<std::uint32_t>& units, const std::string& right_sides) {
    const auto size = static_cast<std::uint32_t>(units.size() * 4);
    std::string text(4 + size, '\0');
    std::memcpy(text.data(), &size, 4);
    std::memcpy(text.data() + 4, units.data(), size);
    return text + right_sides;
}

TEST(CharacterMap, OneRule) {
    std::vector<std::uint32_t> units(512, 0x80000000);
    units[0] = unit(0, 256, false);         // children at 256 ^ label
    units[256 ^ 'A'] = unit('A', 1, true);  // its value beside it
    units[256 ^ 'A' ^ 1] = 0x80000000;      // right side 0
    const CharacterMap rules = read_character_map(compiled(units, std::string("ab\0", 3)));
    EXPECT_EQ(rules, (CharacterMap{{U"A", U"ab"}}));
    EXPECT_FALSE(composes_characters(rules));
    EXPECT_THROW(read_character_map(compiled(units, "ab")), UserError);  // no end
    units[256 ^ 'A'] = unit('A', 'A', false);                            // leads to itself
    EXPECT_THROW(read_character_map(compiled(units, std::string("ab\0", 3))), UserError);
}

TEST(CharacterMap, AnyBytesAreReadOrRefused) {
    std::mt19937 draw(7);
    for (int i = 0; i < 3000; ++i) {
        std::vector<std::uint32_t> units(1 + draw() % 600);
        for (auto& u : units) u = unit(draw() % 256, draw() % 700, draw() % 4 == 0);
        std::string text = compiled(units, std::string(8, '\0'));
        if (draw() % 2 == 0) text.resize(draw() % text.size());
        try {
            read_character_map(text);
        } catch (const UserError&) {
        }
    }
}

TEST(CharacterMap, PlacesBeforeMarksThatNoRuleJoins) {
    EXPECT_EQ(
        places_not_joined({{U"e\u0301", U"\u00E9"}, {U"a\u0301", U"\u00E1"}, {U"x", U"\u0301"}}),
        "(?<=[\\s\\S])(?=[\\p{M}\\x{78}\\x{301}])(?:(?![\\x{301}])|(?=[\\x{301}])(?<![\\x{61}\\x{65}]))");
}

TEST(CharacterMap, Utf8ThereAndBack) {
    for (const char32_t c :
         {U'\x01', U'a', U'\x7F', U'\x80', U'\u07FF', U'\u0800', U'\uFFFF', U'\U00010000', U'\U0010FFFF'})
        EXPECT_EQ(utf32_of(utf8_of(c)), std::u32string(1, c));
}

}  // namespace
}  // namespace switchyard

// UTF-8 and back for every code point, and the places where text may be cut.
#include <gtest/gtest.h>

#include <cstdint>

#include "core/utf8.hpp"

namespace switchyard {
namespace {

TEST(Utf8, EveryCodePointThereAndBack) {
    for (char32_t code = 0; code <= 0x10FFFF; ++code) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        const std::string text = utf8_of(code);
        const Utf8Character found = utf8_at(text, 0);
        ASSERT_TRUE(found.bytes == text.size() && found.code == code) << std::uint32_t{code};
        for (std::size_t length = 1; length < text.size(); ++length)
            ASSERT_EQ(utf8_at(text.substr(0, length) + "a", 0).bytes, 0u) << std::uint32_t{code};
    }
}

/// Texts of two to four bytes are characters only if utf8_of() writes them.
TEST(Utf8, NothingElseIsACharacter) {
    const auto byte = [](unsigned value) { return static_cast<char>(value); };
    const auto expect = [](const std::string& text) {
        const Utf8Character found = utf8_at(text, 0);
        if (found.bytes == text.size()) {
            ASSERT_EQ(utf8_of(found.code), text);
        }
    };
    for (unsigned a = 0x80; a < 0x100; ++a)
        for (unsigned b = 0; b < 0x100; ++b) {
            expect({byte(a), byte(b)});
            for (unsigned c = 0x7F; c < 0xC1; ++c) {
                expect({byte(a), byte(b), byte(c)});
                expect({byte(a), byte(b), byte(c), byte(0x80)});
            }
        }
    for (const char* text : {"\xED\xA0\x80", "\xED\xBF\xBF", "\xC0\xAF", "\xE0\x9F\xBF", "\xF4\x90\x80\x80"})
        EXPECT_EQ(utf8_at(text, 0).bytes, 0u) << testing::PrintToString(text);
}

TEST(Utf8, TextIsCutBeforeACharacter) {
    const std::string text = "a\u00e9\u6771\U0001F600b";
    const std::size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};  // by position
    for (std::size_t position = 0; position < text.size(); ++position)
        EXPECT_EQ(character_boundary(text, position), expected[position]) << position;
    EXPECT_EQ(character_boundary(text, text.size()), text.size());
    const std::string none(9, '\x80');  // bytes that belong to no character
    EXPECT_EQ(character_boundary(none, 7), 7u);
    EXPECT_EQ(character_boundary("\x80\x80", 1), 1u);
}

}  // namespace
}  // namespace switchyard

// Text of unknown origin in the form that may be shown on a terminal.
#include <gtest/gtest.h>

#include "core/printable.hpp"

namespace switchyard {
namespace {

TEST(Printable, TextStaysAsItIs) {
    for (const std::string text :
         {"", "a b\n\tc", "\xC3\xA9t\xC3\xA9", "\xE6\xBC\xA2 \xF0\x9F\x98\x80", "\xC2\xA0"})
        EXPECT_EQ(printable(text), text);
}

TEST(Printable, test_finding_24_what_moves_a_terminal_is_spelled_out) {
    EXPECT_EQ(printable("\x1b[31mred\x1b]0;title\x07"), "\\x1b[31mred\\x1b]0;title\\x07");
    EXPECT_EQ(printable("over\rwritten\b\x7f"), "over\\x0dwritten\\x08\\x7f");
    EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
    EXPECT_EQ(printable("\xC2\x9B"), "\\u{009b}");  // CSI as one character
    EXPECT_EQ(printable("\xE2\x80\xAEtxt.exe"),
              "\\u{202e}txt.exe");  // the text after this mark is shown from right to left
}

TEST(Printable, BytesThatAreNotUtf8AreSpelledOut) {
    EXPECT_EQ(printable("a\x9B"
                        "b"),
              "a\\x9bb");
    EXPECT_EQ(printable("\xC3"), "\\xc3");
    EXPECT_EQ(printable("\xC0\x9B"), "\\xc0\\x9b");           // an overlong form
    EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");  // half of a surrogate pair
    EXPECT_EQ(printable("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
}

}  // namespace
}  // namespace switchyard

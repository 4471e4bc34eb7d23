// One JSON line: the text under a key is exact, the rest of the line may be anything that a tolerant reader
// accepts, and a line that is not an object is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "io/tokens/json_line.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::message_of;

std::string text_of(std::string_view line, std::string_view key = "text") {
    const JsonText found = text_of_json_line(line, key);
    EXPECT_EQ(found.lone_surrogates, 0) << line;
    return found.text;
}

std::string error_of(std::string_view line, std::string_view key = "text") {
    return message_of<UserError>([&] { text_of_json_line(line, key); });
}

TEST(JsonLine, EscapesAreResolved) {
    EXPECT_EQ(text_of(R"({"text": "a\"b\\c\/d\b\f\n\r\te"})"), "a\"b\\c/d\b\f\n\r\te");
    EXPECT_EQ(text_of(R"({"text":"\u0041\u00e9\u20AC\uD83D\uDE00\uffff"})"), "A\u00e9\u20ac\U0001F600\uFFFF");
    EXPECT_EQ(text_of(R"({"text": "\u0000"})"), std::string(1, '\0'));
    EXPECT_EQ(text_of("  {\t\"text\" \r: \"\" }  \r"), "");
    EXPECT_EQ(text_of("{\"text\": \"tab\tand \x01\"}"),
              "tab\tand \x01");  // raw control characters are accepted
}

TEST(JsonLine, test_finding_11_half_surrogate_pairs_become_replacement_characters) {
    const struct {
        const char *escaped, *text;
        int count;
    } cases[] = {
        {R"(a\ud83db)", "a\uFFFDb", 1},
        {R"(\uDE00)", "\uFFFD", 1},
        {R"(\ud83d\ud83d\ude00)", "\uFFFD\U0001F600", 1},
        {R"(\ude00\ud83d)", "\uFFFD\uFFFD", 2},
        {R"(\ud83d\u0041)", "\uFFFDA", 1},
        {R"(\ud83d\n)", "\uFFFD\n", 1},
        {R"(\ud83d\\ude00)", "\uFFFD\\ude00", 1},
    };
    for (const auto& c : cases) {
        const JsonText found = text_of_json_line(std::string("{\"text\": \"") + c.escaped + "\"}", "text");
        EXPECT_EQ(found.text, c.text) << c.escaped;
        EXPECT_EQ(found.lone_surrogates, c.count) << c.escaped;
    }
}

TEST(JsonLine, test_finding_11_fields_that_nobody_reads_may_hold_anything) {
    const std::string deep(200000, '['), closed(200000, ']');
    std::string objects = "1";
    for (int i = 0; i < 5000; ++i) objects = "{\"text\": " + objects + "}";
    const std::string values[] = {"NaN",
                                  "Infinity",
                                  "-Infinity",
                                  "1e999",
                                  "-1e-9999",
                                  "123456789012345678901234567890",
                                  R"("\ud83d")",
                                  R"("\q \u12")",
                                  "\"\xFF\xC3\"",
                                  "\"\x01\"",
                                  "null",
                                  "[]",
                                  "{}",
                                  "true",
                                  R"({"a": 1, "a": 2, "text": "inner"})",
                                  R"([1, {"text": "inner"}, [NaN, "]}"]])",
                                  deep + closed,
                                  objects};
    for (const std::string& value : values) {
        for (const std::string& line :
             {"{\"x\": " + value + ", \"text\": \"kept\"}", "{\"text\": \"kept\", \"x\":" + value + "}"})
            EXPECT_EQ(text_of(line), "kept") << value.substr(0, 40);
        EXPECT_TRUE(is_json_object("{\"x\": " + value + "}")) << value.substr(0, 40);
    }
    EXPECT_EQ(text_of(R"({"text": "first", "text": "last"})"), "last");
    EXPECT_EQ(text_of(R"({"\ud83d": 1, "te\u0078t": "kept"})"), "kept");
}

TEST(JsonLine, KeysMayBePaths) {
    const char* const line =
        R"({"text": "top", "meta": {"text": "inner", "deep": {"er": "x"}, "list": [{"text": "no"}]}, "a.b": "dot"})";
    EXPECT_EQ(text_of(line), "top");
    EXPECT_EQ(text_of(line, "meta.text"), "inner");
    EXPECT_EQ(text_of(line, "meta.deep.er"), "x");
    EXPECT_EQ(text_of(line, "a.b"), "dot");
    EXPECT_CONTAINS(error_of(line, "meta"), "\"meta\" in the JSON object is not a string");
    EXPECT_CONTAINS(error_of(line, "meta.list.text"), "there is no \"meta.list.text\"");
    EXPECT_CONTAINS(error_of(line, "content"),
                    "there is no \"content\" in the JSON object, which has \"text\", \"meta\", \"a.b\"");
    EXPECT_CONTAINS(error_of(line, "tex"), "there is no");
    EXPECT_CONTAINS(error_of(line, "meta_deep.er"), "there is no");
    EXPECT_CONTAINS(error_of(R"({"meta": {"deep": "x"}})", "metaxdeep"), "there is no");
    EXPECT_CONTAINS(error_of("{}"), "which has nothing");
    EXPECT_CONTAINS(error_of(R"({"text": null})"), "is not a string");
    EXPECT_CONTAINS(error_of(R"({"text": ["a"]})"), "is not a string");
    EXPECT_CONTAINS(error_of(R"({"text": "a", "text": 1})"), "is not a string");  // the last one counts
}

TEST(JsonLine, WhatIsNoObjectIsRefused) {
    const char* const lines[] = {
        "",
        "text",
        "[1]",
        "\"text\"",
        "{",
        "}",
        "{]",
        R"({"text": "a)",
        R"({"text": "a\)",
        R"({"text": "a"})"
        " {}",
        R"({"text": "a"}})",
        R"({"text": "a",})",
        R"({"text" "a"})",
        R"({text: "a"})",
        R"({"text": "a" "b": 1})",
        R"({"text": "a", "b": })",
        R"({"text": "a", "b": [1,]})",
        R"({"text": "a", "b": [1 2]})",
        R"({"text": "a", "b": [1})",
        R"({"text": "a", "b": {"c"}})",
        R"({, "text": "a"})",
        R"({'text': 'a'})",
        R"({"text": "a", "b": 'c'})",
        R"({"text": "a"} // so)",
        "{{}}",
    };
    for (const char* line : lines) {
        EXPECT_FALSE(is_json_object(line)) << line;
        EXPECT_FALSE(error_of(line).empty()) << line;
    }
    EXPECT_CONTAINS(error_of(R"({"text": "a)"), "a string has no end");
    EXPECT_CONTAINS(error_of(R"({"text": "a", )"), "it ends where a string is expected");
    EXPECT_CONTAINS(error_of(R"({"text": 'a'})"), "a value is expected at byte 10");
    EXPECT_CONTAINS(error_of(R"({"text": "\x41"})"), "a backslash before \"x\"");
    EXPECT_CONTAINS(error_of(R"({"text": "\u00g1"})"), "without four hexadecimal digits");
}

/// Values that a strict reader accepts too, nested at random.
nlohmann::json drawn(std::uint64_t key, std::uint64_t& next, int depth) {
    const auto draw = [&](std::uint64_t bound) { return uniform_below(key, next++, bound); };
    const auto word = [&] {
        static const char* const parts[] = {"text", "a", "\"", "\\",     "\n",         "{", "}",   "[",
                                            "]",    ",", ":",  "\u00e9", "\U0001F600", ".", "\x01"};
        std::string text;
        for (std::uint64_t i = draw(4); i > 0; --i) text += parts[draw(std::size(parts))];
        return text;
    };
    switch (draw(depth > 0 ? 6 : 4)) {
        case 0:
            return word();
        case 1:
            return static_cast<double>(draw(1000)) / 8 - 50;
        case 2:
            return nullptr;
        case 3:
            return draw(2) == 0;
        case 4: {
            nlohmann::json array = nlohmann::json::array();
            for (std::uint64_t i = draw(4); i > 0; --i) array.push_back(drawn(key, next, depth - 1));
            return array;
        }
        default: {
            nlohmann::json object = nlohmann::json::object();
            for (std::uint64_t i = draw(4); i > 0; --i) object[word()] = drawn(key, next, depth - 1);
            return object;
        }
    }
}

TEST(JsonLine, AgreesWithAStrictReaderWhereThatReads) {
    std::uint64_t next = 0;
    const std::uint64_t key = stream_key(1, "json line");
    int with_text = 0, broken = 0;
    for (int i = 0; i < 3000; ++i) {
        nlohmann::json object = nlohmann::json::object();
        for (int k = 0; k < 3; ++k) object["k" + std::to_string(k)] = drawn(key, next, 4);
        object[i % 3 == 0 ? "k1" : "text"] = drawn(key, next, i % 2);
        std::string line = object.dump(-1, ' ', i % 5 == 0);
        const nlohmann::json value = object.value("text", nlohmann::json());
        if (value.is_string()) {
            ++with_text;
            ASSERT_EQ(text_of(line), value.get<std::string>()) << line;
        } else {
            ASSERT_FALSE(error_of(line).empty()) << line;
        }
        ASSERT_TRUE(is_json_object(line)) << line;
        line.resize(uniform_below(key, next++, line.size()));  // a line that was cut off is never an object
        ASSERT_FALSE(is_json_object(line)) << line;
        ++broken;
    }
    EXPECT_GT(with_text, 300);
    EXPECT_EQ(broken, 3000);
}

}  // namespace
}  // namespace switchyard

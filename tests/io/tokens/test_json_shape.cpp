// JSON in another form than one object a line is found, and text that resembles it is left alone.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/tokens/json_shape.hpp"

namespace switchyard {
namespace {

using Certainty = JsonShape::Certainty;

JsonShape shape_of(const std::string& text, bool ended = true) {
    return shape_of_json(text, ended, "text");
}

std::string repeated(const std::string& unit, int times, const std::string& between) {
    std::string text = unit;
    for (int i = 1; i < times; ++i) text += between + unit;
    return text;
}

TEST(JsonShape, test_finding_01_json_of_other_forms_is_found) {
    const std::string object = R"({"id": 1, "text": "so [it] \"is\""})", string = R"("so it\nis")",
                      pair = R"([0, "so it is"])", pretty = "{\n  \"meta\": {\n    \"text\": \"so\"\n  }\n}",
                      dict = "{'text': \"it's\", 'n': None}";
    const struct {
        std::string text;
        const char* what;
    } cases[] = {
        {repeated(object, 4, ",\n"), "commas"},
        {repeated(object, 4, ",\r\n") + ",", "commas"},
        {"[\n" + repeated(object, 4, ",\n") + "\n]\n", "JSON array"},
        {"[" + repeated(object, 4, ",\n") + "]\n", "JSON array"},
        {"[" + repeated(object, 4, ",") + "]", "JSON array"},
        {repeated(object, 4, ""), "several JSON objects on a line"},
        {repeated(object, 4, " ") + "\n", "several JSON objects on a line"},
        {repeated(object, 4, ", "), "several JSON objects on a line"},
        {repeated(object, 4, "\r"), "line feed"},
        {repeated(string, 4, "\r"), "line feed"},
        {repeated(pair, 4, "\r") + "\r", "line feed"},
        {"\x1E" + repeated(object, 4, "\n\x1E") + "\n", "record separators"},
        {repeated(object, 4, "\x1E"), "line feed"},
        {repeated(object, 4, "\x1E\n"), "record separators"},
        {"\x1E" + repeated(pretty, 4, "\n\x1E"), "over several lines"},
        {repeated(string, 4, "\n"), "JSON strings"},
        {repeated(pair, 4, "\n"), "JSON arrays"},
        {"A heading\n" + repeated(pair, 4, "\n"), "JSON arrays"},
        {"[" + repeated(string, 4, ", ") + "]", "JSON array"},
        {"[\n" + repeated(string, 4, ",\n") + "\n]", "JSON array"},
        {"[\n  " + repeated(pair, 4, ",\n  "), "JSON array"},  // cut
        {repeated(pretty, 4, "\n"), "over several lines"},
        {repeated(pretty, 2, ",\n"), "over several lines"},
        {"{\n \"data\": [\n  {\n   \"text\": \"so\"\n  }\n ]\n}\n", "over several lines"},
        {repeated(dict, 4, "\n"), "Python's dicts"},
        {repeated(dict, 4, ",\n"), "Python's dicts"},
        {"[" + repeated(dict, 4, ",\n ") + "]", "Python's dicts"},
        {"[" + repeated(dict, 4, ", ") + "]", "Python's dicts"},
        {"[{'n': 1,\n  'text': 'so'},\n {'n': 2,\n  'text': 'so'}]", "Python's dicts"},
    };
    for (const auto& c : cases)
        for (const char* before : {"", "\n", " \n\n"}) {
            const JsonShape shape = shape_of(before + c.text);
            EXPECT_EQ(shape.certainty, Certainty::certain) << c.text;
            EXPECT_NE(std::string(shape.what).find(c.what), std::string::npos)
                << c.text << ": " << shape.what;
            EXPECT_LT(shape.objects * 2, std::max<std::size_t>(shape.num_lines, 1)) << c.text;
        }
    const std::string long_text = repeated("stone river", 20000, " ");
    EXPECT_TRUE(shape_of("{\"text\": \"" + long_text, false).is_one_long_object);
    EXPECT_EQ(shape_of("[\"" + long_text, false).certainty, Certainty::certain);
    EXPECT_EQ(shape_of("[" + repeated("\"" + long_text + "\"", 3, ",\n"), false).certainty,
              Certainty::certain);
}

TEST(JsonShape, test_finding_01_what_resembles_json_stays_text) {
    for (const char* text : {"",
                             "{",
                             "[",
                             "{\"",
                             "[\"",
                             "[\n",
                             "{}\n{not json}\n{nor this}\n",
                             "[1, 2]\n[3]\n",
                             "3\n4\n",
                             "[1] A footnote.\n[2] Another.\n",
                             "[1], as he said\n",
                             "[1]\n[2]\n[3]\n",
                             "[Chorus]\nla la\n[Verse]\nlo\n",
                             "[[A link]] leads on.\n{{Box\n| a = 1\n}}\n",
                             "[[Category:One]]\n[[Category:Two]]\n",
                             "[run]\nsteps = 3\n",
                             "[\n1\n] and prose\n",
                             "[\"a\", \"b\"].map(f);\n",
                             "[\"a\"], he wrote\n",
                             "\"Yes,\" she said.\n\"No.\"\n\"Well,\" he said.\n",
                             "\"a\",\"b\"\n\"c\",\"d\\n\"\n",
                             "msgid \"a\"\n\"b\\n\"\n\"c\\n\"\n\"d\\n\"\nmsgstr \"\"\n\"e\\n\"\n",
                             "{'a': 1}\nprint('so')\nexit()\n",
                             "{ int x = 1; }\n",
                             "{\\bf bold} text\n",
                             "{\"a\": 1} is an object\nand this is prose\n",
                             "Prose, with\n{\"an\": \"object\"}\nand more prose.\n",
                             "- [ ] to do\n- [x] done\n",
                             "{\n  \"name\": \"x\"\n} ends here, and prose follows\n",
                             "{% block %}\n{{ name }}\n"}) {
        const JsonShape shape = shape_of(text);
        EXPECT_EQ(shape.certainty, Certainty::none) << text << ": " << shape.what;
        EXPECT_FALSE(shape.is_one_long_object) << text;
    }
}

TEST(JsonShape, test_finding_01_what_may_be_json_is_warned_of) {
    for (const char* text : {"{\n  \"name\": \"pretty\"\n}\n", "\"a\"\n\"b\"\n",
                             "{\n \"data\": [\n  {\n   \"body\": \"so\"\n  }\n ]\n}\n"})
        EXPECT_EQ(shape_of(text).certainty, Certainty::likely) << text;
    const JsonShape lines = shape_of("{\"text\": \"so\"}\n\n{\"text\": \"so\"}\n");
    EXPECT_EQ(lines.objects, 2u);
    EXPECT_EQ(lines.num_lines, 2u);
    EXPECT_EQ(lines.certainty, Certainty::none);
}

}  // namespace
}  // namespace switchyard

// A scanner over one line with a stack of its own, so that nesting uses memory and never the program's stack.
// It checks the grammar of objects and arrays and the ends of strings, and decodes only the requested value.
#include "io/tokens/json_line.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/files/strict_json.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {
namespace {

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/// True for characters of numbers, true, false, null, NaN, -Infinity, 1e999.
bool is_bare(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '-' || c == '.' || c == '_';
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// The value of the four digits after \u at `i`, or -1.
int code_unit(std::string_view raw, std::size_t i) {
    if (i + 4 > raw.size()) return -1;
    int code = 0;
    for (std::size_t k = i; k < i + 4; ++k) {
        const int digit = hex_digit(raw[k]);
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

bool is_high(int code) {
    return code >= 0xD800 && code < 0xDC00;
}
bool is_low(int code) {
    return code >= 0xDC00 && code < 0xE000;
}

/// Appends the character of \uXXXX, whose digits begin at `i`; returns the position after it.
std::size_t append_escaped_unit(std::string_view raw, std::size_t i, JsonText& out) {
    const int code = code_unit(raw, i);
    require(code >= 0, "not valid JSON: \\u without four hexadecimal digits");
    i += 4;
    if (is_high(code) && raw.substr(i, 2) == "\\u") {
        if (const int low = code_unit(raw, i + 2); is_low(low)) {
            out.text += utf8_of(0x10000u + (static_cast<char32_t>(code - 0xD800) << 10) +
                                static_cast<char32_t>(low - 0xDC00));
            return i + 6;
        }
    }
    if (is_high(code) || is_low(code)) {
        out.text += replacement_character;
        ++out.lone_surrogates;
    } else {
        out.text += utf8_of(static_cast<char32_t>(code));
    }
    return i;
}

/// The content of a string between its quotes, with escapes resolved.
JsonText unescaped(std::string_view raw) {
    constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    JsonText out;
    out.text.reserve(raw.size());
    for (std::size_t i = 0; i < raw.size();) {
        const std::size_t escape = std::min(raw.find('\\', i), raw.size());
        out.text.append(raw, i, escape - i);
        if (escape == raw.size()) break;
        const char name = raw[escape + 1];  // the scanner has checked that a character follows
        if (name == 'u') {
            i = append_escaped_unit(raw, escape + 2, out);
            continue;
        }
        const std::size_t known = names.find(name);
        require(known != std::string_view::npos, "not valid JSON: a backslash before {}",
                quoted(std::string(1, name)));
        out.text += meanings[known];
        i = escape + 2;
    }
    return out;
}

class Scanner {
  public:
    Scanner(std::string_view line, std::string_view key) : line_(line), key_(key) {}

    /// Scans the whole line.
    void run() {
        skip_spaces();
        require(peek() == '{', "not a JSON object");
        value(key_);
        while (!open_.empty()) step();
        skip_spaces();
        require(at_ == line_.size(), "not valid JSON: more text after the object, at byte {}", at_ + 1);
    }
    /// Scans the value at the beginning, and notes what is in it.
    JsonBeginning survey() {
        skip_spaces();
        beginning_.first = peek();
        if (at_ == line_.size() || std::string_view("{[\"").find(peek()) == std::string_view::npos) return {};
        try {
            value(key_);
            while (!open_.empty()) step();
            beginning_.end = JsonBeginning::End::whole;
        } catch (const UserError&) {
            if (at_ < line_.size()) return {};
            beginning_.end = JsonBeginning::End::cut;
        }
        beginning_.bytes = at_;
        return beginning_;
    }
    enum class Found { nothing, no_string, string };
    Found found() const { return found_; }
    std::string_view raw() const { return raw_; }
    /// The first names in the outermost object, for messages.
    std::string names() const {
        std::string list;
        for (const std::string_view name : names_)
            list += (list.empty() ? "" : ", ") + quoted(std::string(name));
        return list.empty() ? "nothing" : list;
    }

  private:
    static constexpr std::size_t most_names = 8, deepest = 4'000'000;
    /// An open object or array. `wanted`: the rest of the key's path for its members; none outside the path.
    struct Level {
        bool object;
        std::optional<std::string_view> wanted;
        bool empty = true;
    };

    char peek() const { return at_ < line_.size() ? line_[at_] : '\0'; }
    void skip_spaces() {
        while (at_ < line_.size() && is_space(line_[at_])) ++at_;
    }
    [[noreturn]] void refuse(const char* expected) const {
        if (at_ >= line_.size()) fail("not valid JSON: it ends where {} is expected", expected);
        fail("not valid JSON: {} is expected at byte {}", expected, at_ + 1);
    }
    void take(char c, const char* expected) {
        if (peek() != c) refuse(expected);
        ++at_;
    }
    /// Scans a string; returns the text between its quotes with its escapes.
    std::string_view string() {
        take('"', "a string");
        const std::size_t begin = at_;
        for (;;) {
            at_ = line_.find_first_of("\"\\", at_);
            if (at_ == std::string_view::npos || (line_[at_] == '\\' && at_ + 1 == line_.size())) {
                at_ = line_.size();
                fail("not valid JSON: a string has no end");
            }
            if (line_[at_] == '"') break;
            at_ += 2;
        }
        return line_.substr(begin, at_++ - begin);
    }
    /// Begins a value, and finishes it if it is neither object nor array. `wanted`: the rest of the path; "":
    /// this value is requested.
    void value(std::optional<std::string_view> wanted) {
        const bool is_it = wanted && wanted->empty();
        if (is_it) found_ = Found::no_string;
        if (peek() == '"') {
            if (!open_.empty()) beginning_.has_text = true;
            const std::string_view raw = string();
            if (raw.find('\\') != std::string_view::npos) beginning_.has_escapes = true;
            if (is_it) found_ = Found::string, raw_ = raw;
        } else if (peek() == '{' || peek() == '[') {
            require(open_.size() < deepest, "nested deeper than {} levels", deepest);
            const bool object = line_[at_++] == '{';
            if (object && !open_.empty()) beginning_.has_text = true;
            open_.push_back({object, object && wanted && !wanted->empty() ? wanted : std::nullopt});
        } else {
            const std::size_t begin = at_;
            while (at_ < line_.size() && is_bare(line_[at_])) ++at_;
            if (at_ == begin) refuse("a value");
        }
    }
    /// Scans one member of the innermost level, or its end.
    void step() {
        skip_spaces();
        Level& level = open_.back();
        if (peek() == (level.object ? '}' : ']')) {
            ++at_;
            open_.pop_back();
            return;
        }
        if (!level.empty) {
            take(',', level.object ? ", or }" : ", or ]");
            skip_spaces();
        }
        level.empty = false;
        std::optional<std::string_view> wanted;
        if (level.object) {
            const std::string_view name = string();
            if (open_.size() == 1 && names_.size() < most_names) names_.push_back(name);
            wanted = below(level.wanted, name);
            skip_spaces();
            take(':', "a colon");
            skip_spaces();
            if (peek() == '"' && name == key_.substr(key_.rfind('.') + 1)) beginning_.has_key = true;
        }
        value(wanted);  // may invalidate `level`
    }
    /// The rest of the path at member `name`: "" for the requested value, none if the path leads elsewhere.
    static std::optional<std::string_view> below(std::optional<std::string_view> path,
                                                 std::string_view name) {
        if (!path) return std::nullopt;
        std::string resolved;
        if (name.find('\\') != std::string_view::npos) {
            try {
                name = resolved = unescaped(name).text;
            } catch (const UserError&) {
                return std::nullopt;
            }
        }
        if (name == *path) return std::string_view();
        if (path->starts_with(name) && path->size() > name.size() && (*path)[name.size()] == '.')
            return path->substr(name.size() + 1);
        return std::nullopt;
    }

    std::string_view line_, key_, raw_;
    std::size_t at_ = 0;
    std::vector<Level> open_;
    std::vector<std::string_view> names_;
    JsonBeginning beginning_;
    Found found_ = Found::nothing;
};

}  // namespace

JsonText text_of_json_line(std::string_view line, std::string_view key) {
    Scanner scanner(line, key);
    scanner.run();
    using Found = Scanner::Found;
    require(scanner.found() != Found::nothing, "there is no {} in the JSON object, which has {}",
            quoted(std::string(key)), scanner.names());
    require(scanner.found() == Found::string, "{} in the JSON object is not a string",
            quoted(std::string(key)));
    return unescaped(scanner.raw());
}

JsonBeginning json_beginning(std::string_view text, std::string_view key) {
    return Scanner(text, key).survey();
}

bool is_json_object(std::string_view line) {
    try {
        Scanner(line, "").run();
        return true;
    } catch (const UserError&) {
        return false;
    }
}

}  // namespace switchyard

// Safetensors: what is written is read back, and every kind of malformed file is an error that names file and
// tensor.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <regex>

#include "core/error.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::message_of;
using test::TemporaryDirectory;

/// A file with this header text and these values; `length` is the header length that it declares, by default
/// the true one.
std::string file_text(const std::string& header, const std::string& values, std::uint64_t length = ~0ull) {
    if (length == ~0ull) length = header.size();
    std::string text(sizeof length, '\0');
    std::memcpy(text.data(), &length, sizeof length);
    return text + header + values;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

const std::string two_floats = entry("F32", "[2]", "[0,8]");

class Safetensors : public ::testing::Test {
  protected:
    std::string error_of(const std::string& text) {
        const std::string path = folder_.write("x.safetensors", text);
        const std::string message = message_of<UserError>([&] { SafetensorsFile file(path); });
        if (!message.empty()) {
            EXPECT_CONTAINS(message, path);
            EXPECT_TRUE(std::regex_search(message, std::regex(R"(\(.+\); (download|save|convert) )")))
                << "why, and what to do: " << message;
        }
        return message;
    }
    /// The error for this header in a file of the right length.
    std::string header_error(const std::string& header, std::size_t value_bytes = 8) {
        return error_of(file_text(header, std::string(value_bytes, '\0')));
    }
    std::string write_floats(const std::string& file, const std::string& name, std::vector<float> values) {
        const auto size = static_cast<std::int64_t>(values.size());
        SafetensorsWriter writer(folder_.file(file), {{name, DType::f32, {size}}});
        writer.append(values.data(), values.size() * sizeof(float));
        writer.finish();
        return folder_.file(file);
    }
    std::string directory_error() {
        return message_of<UserError>([&] { SafetensorsDirectory directory(folder_.path()); });
    }
    TemporaryDirectory folder_;
};

TEST_F(Safetensors, WhatIsWrittenComesBack) {
    const float odd[] = {1.5f, -0.0f, std::numeric_limits<float>::denorm_min(), INFINITY, 3.25f, -7.0f};
    const std::uint16_t narrow[] = {0x3F80, 0xC000, 0x0001};
    const std::string path = folder_.file("x.safetensors");
    {
        SafetensorsWriter writer(path,
                                 {{"a.weight", DType::f32, {2, 3}}, {"b \"quoted\"", DType::bf16, {3}}});
        writer.append(odd, 8);
        writer.append(reinterpret_cast<const char*>(odd) + 8, sizeof odd - 8);
        writer.append(narrow, sizeof narrow);
        writer.finish();
    }
    const SafetensorsFile file(path);
    ASSERT_EQ(file.entries().size(), 2u);
    EXPECT_EQ(file.entries().at("a.weight").shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(file.entries().at("b \"quoted\"").dtype, "BF16");
    float read[6];
    file.read_f32("a.weight", 0, 6, read);
    EXPECT_EQ(std::memcmp(read, odd, sizeof odd), 0);
    file.read_f32("a.weight", 4, 2, read);
    EXPECT_EQ(read[1], -7.0f);
    file.read_f32("b \"quoted\"", 0, 3, read);
    EXPECT_EQ(read[0], 1.0f);
    EXPECT_EQ(read[1], -2.0f);
    EXPECT_EQ(read[2], std::bit_cast<float>(0x00010000u));
    // Values begin at a multiple of 8, because other readers require it.
    std::uint64_t length = 0;
    std::memcpy(&length, folder_.read("x.safetensors").data(), sizeof length);
    EXPECT_EQ(length % 8, 0u);
    EXPECT_CONTAINS(message_of<UserError>([&] { SafetensorsWriter(path, {}); }), "cannot create");
}

/// Each of the 65536 half-precision numbers, against the definition of the format.
TEST_F(Safetensors, HalvesAreExact) {
    std::string values(2 << 16, '\0');
    for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) std::memcpy(values.data() + 2 * bits, &bits, 2);
    const std::string header = "{\"h\":" + entry("F16", "[65536]", "[0,131072]") + "}";
    const SafetensorsFile file(folder_.write("h.safetensors", file_text(header, values)));
    std::vector<float> read(1 << 16);
    file.read_f32("h", 0, 1 << 16, read.data());
    for (int bits = 0; bits < 1 << 16; ++bits) {
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const double sign = bits & 0x8000 ? -1 : 1;
        if (exponent == 31) {
            EXPECT_EQ(std::isnan(read[bits]), fraction != 0) << bits;
            EXPECT_EQ(std::signbit(read[bits]), sign < 0) << bits;
            if (fraction == 0) {
                EXPECT_TRUE(std::isinf(read[bits])) << bits;
            }
            continue;
        }
        const double value =
            exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
        ASSERT_EQ(static_cast<double>(read[bits]), sign * value) << bits;
        ASSERT_EQ(std::signbit(read[bits]), sign < 0) << bits;
    }
}

TEST_F(Safetensors, Lengths) {
    const std::string good = "{\"x\":" + two_floats + "}", values(8, '\0');
    EXPECT_EQ(error_of(file_text(good, values)), "");
    EXPECT_EQ(error_of(file_text(good + "   ", values)), "");  // padding
    EXPECT_CONTAINS(error_of(""), "has 0 bytes");
    EXPECT_CONTAINS(error_of("1234567"), "has 7 bytes");
    EXPECT_CONTAINS(error_of(file_text(good, "", good.size() + 1)), "its header has");
    EXPECT_CONTAINS(error_of(file_text(good, values, std::numeric_limits<std::uint64_t>::max() - 1)),
                    "its header has");
    EXPECT_CONTAINS(error_of(file_text(good, values, 1ull << 63)), "its header has");
    EXPECT_CONTAINS(error_of(file_text(good, values, 100'000'001)), "100000000");
    EXPECT_CONTAINS(error_of(file_text(good, values, 0)), "does not begin with {");
    EXPECT_CONTAINS(error_of(file_text(" " + good, values)), "does not begin with {");
    EXPECT_CONTAINS(error_of(file_text(good, values, good.size() - 1)), "JSON");
    EXPECT_CONTAINS(error_of(file_text(good, values.substr(1))), "\"x\"");  // the values are cut off
    EXPECT_CONTAINS(error_of(file_text(good, values + "1")), "1 bytes after tensor \"x\"");
    EXPECT_CONTAINS(error_of(file_text("{}", "1234")), "4 bytes after the header");
    EXPECT_EQ(error_of(file_text("{}", "")), "");
    EXPECT_CONTAINS(message_of<UserError>([&] { SafetensorsFile(folder_.path()); }),
                    "is not a regular file but a folder");
    EXPECT_CONTAINS(message_of<UserError>([&] { SafetensorsFile(folder_.file("none")); }), "cannot open");
}

TEST_F(Safetensors, JsonIsChecked) {
    EXPECT_CONTAINS(header_error("{\"x\":" + two_floats), "JSON");
    EXPECT_CONTAINS(header_error("{\"x\":" + two_floats + "}}"), "JSON");
    EXPECT_CONTAINS(header_error("{\"\xff\xfe\":" + two_floats + "}"), "UTF-8");
    EXPECT_CONTAINS(header_error(std::string("{\"a\0\":1}", 8)), "JSON");
    EXPECT_CONTAINS(header_error("{\"x\":" + two_floats + ",\"x\":" + two_floats + "}"), "has \"x\" twice");
    EXPECT_CONTAINS(header_error(R"({"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
                    "has \"dtype\" twice");
    EXPECT_CONTAINS(header_error("{\"x\":" + std::string(1'000'000, '[')), "deep");
    EXPECT_CONTAINS(header_error("{\"x\":3}"), "not described by");
    EXPECT_CONTAINS(header_error(R"({"x":{"dtype":"F32","shape":[2]}})"), "not described by");
    EXPECT_CONTAINS(header_error(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})"),
                    "not described by");
    EXPECT_CONTAINS(header_error(R"({"x":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})"), "dtype");
    EXPECT_CONTAINS(header_error(R"({"x":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})"), "shape");
    EXPECT_CONTAINS(header_error(R"({"__metadata__":{"a":1},"x":)" + two_floats + "}"), "__metadata__");
    EXPECT_CONTAINS(header_error(R"({"__metadata__":"pt","x":)" + two_floats + "}"), "__metadata__");
    EXPECT_EQ(header_error(R"({"__metadata__":{"format":"pt"},"x":)" + two_floats + "}"), "");
}

TEST_F(Safetensors, OffsetsAreChecked) {
    const auto one = [&](const std::string& offsets) {
        return header_error("{\"x\":" + entry("F32", "[2]", offsets) + "}");
    };
    EXPECT_CONTAINS(one("[0,9]"), "data_offsets 0 to 9");
    EXPECT_CONTAINS(one("[8,0]"), "data_offsets 8 to 0");
    EXPECT_CONTAINS(one("[-8,0]"), "not a whole number");
    EXPECT_CONTAINS(one("[0.0,8.0]"), "not a whole number");
    EXPECT_CONTAINS(one("[0,18446744073709551616]"), "not a whole number");
    EXPECT_CONTAINS(one("[18446744073709551608,18446744073709551615]"), "not a whole number");
    EXPECT_CONTAINS(one("[0,8,8]"), "not two numbers");
    EXPECT_CONTAINS(one("[0]"), "not two numbers");
    EXPECT_CONTAINS(one("8"), "not two numbers");
    EXPECT_CONTAINS(one("[0,4]"), "4 bytes for 2 values");
    EXPECT_CONTAINS(header_error("{\"x\":" + entry("F32", "[1]", "[4,8]") + "}"),
                    "4 bytes between the header and");
}

TEST_F(Safetensors, OverlapsAndHoles) {
    const auto two = [&](const std::string& a, const std::string& b, std::size_t bytes) {
        return header_error("{\"a\":" + entry("F32", "[2]", a) + ",\"b\":" + entry("F32", "[2]", b) + "}",
                            bytes);
    };
    EXPECT_EQ(two("[0,8]", "[8,16]", 16), "");
    EXPECT_EQ(two("[8,16]", "[0,8]", 16), "");
    EXPECT_CONTAINS(two("[0,8]", "[4,12]", 12), "tensor \"b\" begins at byte 4, inside tensor \"a\"");
    EXPECT_CONTAINS(two("[0,8]", "[0,8]", 8), "inside");
    EXPECT_CONTAINS(two("[0,8]", "[12,20]", 20), "4 bytes between tensor \"a\" and tensor \"b\"");
    EXPECT_CONTAINS(two("[0,8]", "[8,16]", 20), "4 bytes after tensor \"b\"");
    EXPECT_EQ(header_error("{\"a\":" + two_floats + ",\"empty\":" + entry("F32", "[0,5]", "[8,8]") + "}"),
              "");
}

TEST_F(Safetensors, TypesAndShapes) {
    const auto one = [&](const std::string& dtype, const std::string& shape) {
        return header_error("{\"x\":" + entry(dtype, shape, "[0,8]") + "}");
    };
    for (const char* good : {"F32", "I32", "U32"}) EXPECT_EQ(one(good, "[2]"), "");
    for (const char* good : {"F64", "I64", "C64"}) EXPECT_EQ(one(good, "[]"), "");
    EXPECT_EQ(one("F4", "[16]"), "");
    EXPECT_CONTAINS(one("F33", "[2]"), "type \"F33\"");
    EXPECT_CONTAINS(one("f32", "[2]"), "type \"f32\"");
    EXPECT_CONTAINS(one("F4", "[15]"), "no whole number of bytes");
    EXPECT_CONTAINS(one("F16", "[2]"), "8 bytes for 2 values of type F16 (4 are needed: ");
    EXPECT_CONTAINS(one("F32", "[-2]"), "not a whole number");
    EXPECT_CONTAINS(one("F32", "[\"2\"]"), "not a whole number");
    EXPECT_CONTAINS(one("F32", "[4294967296,4294967296,2]"), "more bytes than can be counted");
    EXPECT_CONTAINS(one("F32", "[4611686018427387904,4]"), "more bytes than can be counted");
    EXPECT_CONTAINS(one("F32", "[9223372036854775808]"), "not a whole number");
    EXPECT_CONTAINS(one("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]"), "17 dimensions");

    const std::string header = "{\"x\":" + entry("F64", "[1]", "[0,8]") + "}";
    const SafetensorsFile file(folder_.write("f64.safetensors", file_text(header, std::string(8, '\0'))));
    float value = 0;
    EXPECT_CONTAINS(message_of<UserError>([&] { file.read_f32("x", 0, 1, &value); }), "\"x\" is of type F64");
}

TEST_F(Safetensors, NamesInMessagesAreHarmless) {
    const std::string message = header_error(R"({"a\u001b[31m\nb":)" + entry("F32", "[1]", "[0,8]") + "}");
    EXPECT_CONTAINS(message, R"("a\u001b[31m\nb")");
    EXPECT_EQ(message.find('\x1b'), std::string::npos);
    EXPECT_LT(header_error("{\"" + std::string(1 << 20, 'a') + "\":3}").size(), 600u);
}

TEST_F(Safetensors, DirectoryOfOneFile) {
    EXPECT_CONTAINS(directory_error(), "neither model.safetensors nor");
    write_floats("model.safetensors", "x", {1, 2});
    const SafetensorsDirectory directory(folder_.path());
    EXPECT_EQ(directory.names(), std::vector<std::string>{"x"});
    EXPECT_EQ(directory.entry("x").size(), 2);
    folder_.write("model.safetensors.index.json", R"({"weight_map":{"x":"model.safetensors"}})");
    EXPECT_CONTAINS(directory_error(), "unclear which");
}

TEST_F(Safetensors, DirectoryWithIndex) {
    write_floats("one.safetensors", "x", {1, 2});
    write_floats("two.safetensors", "y", {3});
    const auto index = [&](const std::string& text) {
        folder_.write("model.safetensors.index.json", text);
        return directory_error();
    };
    EXPECT_EQ(index(R"({"metadata":{},"weight_map":{"x":"one.safetensors","y":"two.safetensors"}})"), "");
    const SafetensorsDirectory directory(folder_.path());
    EXPECT_EQ(directory.names(), (std::vector<std::string>{"x", "y"}));
    EXPECT_CONTAINS(directory.file_of("y").path(), "two.safetensors");

    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"one.safetensors","z":"two.safetensors"}})"),
                    "has no tensor \"z\"");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"two.safetensors","y":"one.safetensors"}})"),
                    "has no tensor");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"one.safetensors","y":"three.safetensors"}})"),
                    "three.safetensors");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"../one.safetensors"}})"), "lie beside it");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"/etc/passwd"}})"), "lie beside it");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":".."}})"), "lie beside it");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"a\u0000b"}})"), "lie beside it");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":""}})"), "lie beside it");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":1}})"), "names no file");
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"one.safetensors","x":"two.safetensors"}})"), "\"x\" twice");
    EXPECT_CONTAINS(index(R"({"weight_map":[]})"), "no weight_map");
    EXPECT_CONTAINS(index("[]"), "not an object");
    EXPECT_CONTAINS(index("{"), "JSON");
    write_floats("three.safetensors", "extra", {3});
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"one.safetensors","y":"three.safetensors"}})"),
                    "has no tensor \"y\"");
    SafetensorsWriter both(folder_.file("both.safetensors"),
                           {{"x", DType::f32, {1}}, {"extra", DType::f32, {1}}});
    both.append("12345678", 8);
    both.finish();
    EXPECT_CONTAINS(index(R"({"weight_map":{"x":"both.safetensors"}})"), "holds tensor \"extra\"");
}

/// Any damaged byte of a header gives an error or another valid header, never a crash (the sanitizers check).
TEST_F(Safetensors, DamagedBytes) {
    const std::string header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":" + entry("BF16", "[2,2]", "[0,8]") +
        ",\"b\":" + entry("F32", "[1]", "[8,12]") + "}";
    const std::string good = file_text(header, "123456789012");
    ASSERT_EQ(error_of(good), "");
    int refused = 0;
    for (std::size_t at = 0; at < good.size() - 12; ++at)
        for (const char byte : {'\0', '9', '"', '[', '\x80', '\xff'}) {
            std::string bad = good;
            bad[at] = byte;
            refused += !error_of(bad).empty();
        }
    EXPECT_GT(refused, static_cast<int>(4 * header.size()));
}

/// For the sanitizers: nothing is copied from a null pointer.
TEST_F(Safetensors, test_finding_24_a_tensor_without_values_is_read) {
    for (const char* type : {"F32", "BF16", "F16"}) {
        const SafetensorsFile file(folder_.write(
            "none.safetensors", file_text("{\"x\":" + entry(type, "[0,3]", "[0,0]") + "}", "")));
        EXPECT_NO_THROW(file.read_f32("x", 0, 0, nullptr));
    }
    const SafetensorsFile file(
        folder_.write("none.safetensors", file_text("{\"x\":" + entry("I64", "[0]", "[0,0]") + "}", "")));
    EXPECT_CONTAINS(message_of<UserError>([&] { file.read_f32("x", 0, 0, nullptr); }), "is of type I64");
}

}  // namespace
}  // namespace switchyard

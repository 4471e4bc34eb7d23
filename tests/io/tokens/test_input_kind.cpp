// Kinds of files by their first bytes: files that are not text are refused by name, and text that resembles
// one of them is accepted.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "io/tokens/input_kind.hpp"
#include "support/temporary_directory.hpp"
#include "support/token_files.hpp"

namespace switchyard {
namespace {

using namespace std::string_literals;
using test::message_of;

std::string known(const std::string& bytes) {
    return message_of<UserError>([&] { refuse_known_kinds("x", bytes); });
}
std::string unknown(const std::string& bytes) {
    return message_of<UserError>([&] { refuse_unknown_binary("x", bytes); });
}
std::string zip_of(const std::string& first_entry) {
    return "PK\x03\x04\x14\0\0\0\x08\0"s + std::string(16, '\0') + static_cast<char>(first_entry.size()) +
           "\0\0\0"s + first_entry;
}

TEST(InputKind, test_finding_02_every_kind_is_refused_by_its_name) {
    const std::pair<std::string, const char*> cases[] = {
        {"\x1F\x8B\x08\0"s, "gzip"},
        {"\x28\xB5\x2F\xFD\x04"s, "zstd"},
        {"\x50\x2A\x4D\x18\x04\0\0\0"s, "zstd"},
        {"\xFD"
         "7zXZ\0\0\x04"s,
         "xz"},
        {"BZh91AY&SY\xA0\x12"s, "bzip2"},
        {"\x04\x22\x4D\x18\x64"s, "lz4"},
        {"\x5D\0\0\x80\0"s, "lzma"},
        {"7z\xBC\xAF\x27\x1C\0\x04"s, "a 7z archive"},
        {"Rar!\x1A\x07\x01\0"s, "a rar archive"},
        {"name.txt" + std::string(249, '\0') + "ustar\0"s, "a tar archive"},
        {zip_of("a.txt"), "a zip archive"},
        {"PK\x05\x06"s + std::string(18, '\0'), "a zip archive"},
        {zip_of("[Content_Types].xml"), "an office document"},
        {zip_of("mimetypeapplication/vnd.oasis.opendocument.text"), "an office document"},
        {zip_of("mimetypeapplication/epub+zip"), "a book (EPUB)"},
        {zip_of("arr_0.npy"), "NumPy arrays (npz)"},
        {zip_of("archive/data.pkl"), "a PyTorch file"},
        {"PAR1\x15\x04\x15\x10"s, "a Parquet file"},
        {"ARROW1\0\0\xFF\xFF\xFF\xFF"s, "an Arrow (Feather) file"},
        {"FEA1\0\0\0\0"s, "a Feather file"},
        {"\xFF\xFF\xFF\xFF\x70\0\0\0"s, "Arrow"},
        {"ORC\x0A\x03\x08\x02"s, "an ORC file"},
        {"Obj\x01\x04\x16"s, "an Avro file"},
        {"SQLite format 3\0\x10"s, "an SQLite database"},
        {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"s, "Microsoft Office"},
        {"\x93NUMPY\x01\0v\0{'descr': '<f8'"s, "a NumPy array"},
        {"\x89HDF\r\n\x1A\n\0"s, "an HDF5 file"},
        {std::string(512, '\0') + "\x89HDF\r\n\x1A\n\0"s, "an HDF5 file"},
        {"CDF\x01\0\0"s, "a NetCDF file"},
        {"MATLAB 5.0 MAT-file, Platform"s, "a MATLAB file"},
        {"GGUF\x03\0\0\0"s, "a GGUF model"},
        {"\x80\x02\x8A\x0Al\xFC\x9C\x46\xF9\x20"s, "a PyTorch file"},
        {"\x80\x04\x95\x10\0"s, "a Python pickle"},
        {"(lp0\nVtext\np1\na."s, "a Python pickle"},
        {"\x40\0\0\0\0\0\0\0{\"a\": {\"dtype\""s, "a safetensors file"},
        {"\x21\x4E\0\0\0\0\0\0\xA1\xB2\xC3\xD4\x0A\x9E\x9C\x01"s + std::string(20000, 'a'),
         "a TFRecord file"},
        {"\x2C\x4E\0\0\x02text\0\x21\x4E\0\0"s + std::string(20000, 'a'), "a BSON file"},
        {"\x82\xA4text\xDA\x4E\x20"s + std::string(20000, 'a'), "a MessagePack file"},
        {"\xDD\0\0\0\x02\x81\xA7"s + "content\xDA\x4E\x20" + std::string(20000, 'a'), "a MessagePack file"},
        {"%PDF-1.7\n%\xE2\xE3"s, "a PDF document"},
        {"\n\n%PDF-1.4\n1 0 obj\n<< >>\nendobj\n"s, "a PDF document"},
        {"{\\rtf1\\ansi"s, "Rich Text Format"},
        {"\x89PNG\r\n\x1A\n\0"s, "a picture (PNG)"},
        {"\xFF\xD8\xFF\xE0\0\x10JFIF"s, "a picture (JPEG)"},
        {"GIF89a\x01\0"s, "a picture (GIF)"},
        {"II*\0\x08"s, "a picture (TIFF)"},
        {"BM\x36\x10\0\0\0\0\0\0\x36"s, "a picture (BMP)"},
        {"RIFF\x24\0\0\0WEBPVP8 "s, "RIFF"},
        {"\0\0\0\x20"
         "ftypisom"s,
         "a film or picture"},
        {"\x7F"
         "ELF\x02\x01\x01"s,
         "ELF"},
        {"\xCF\xFA\xED\xFE\x07"s, "Mach-O"},
        {"MZ\x90\0\x03"s, "Windows"},
        {"\xFF\xFEk\0a\0"s, "is UTF-16"},
        {"\xFE\xFF\0k\0a"s, "is UTF-16"},
        {"\xFF\xFE\0\0k\0\0\0"s, "is UTF-32"},
        {"\0\0\xFE\xFF\0\0\0k"s, "is UTF-32"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:12\n"s, "Git LFS"},
    };
    for (const auto& [bytes, name] : cases) {
        EXPECT_CONTAINS(known(bytes), name);
        EXPECT_CONTAINS(known(bytes), "; ") << "what to do";
    }
}

TEST(InputKind, test_finding_02_binary_of_no_known_kind_is_refused) {
    std::string noise, counts, shorts;
    for (std::uint64_t i = 0; i < 4096; ++i) {
        noise += static_cast<char>(mix64(i));
        counts += static_cast<char>(1 + i % 6);
        shorts += static_cast<char>(mix64(i)), shorts += static_cast<char>(mix64(i) >> 8 & 3);
    }
    std::string wide_little, wide_big, four_little, four_big;
    for (const char c : test::sample_text(20, 1)) {
        wide_little += c, wide_little += '\0';
        wide_big += '\0', wide_big += c;
        four_little += c, four_little += "\0\0\0"s;
        four_big += "\0\0\0"s, four_big += c;
    }
    EXPECT_CONTAINS(unknown(noise), "are NUL");
    EXPECT_CONTAINS(unknown(shorts), "are NUL");
    EXPECT_CONTAINS(unknown(counts), "control characters");
    EXPECT_CONTAINS(unknown(wide_little), "iconv -f utf-16le");
    EXPECT_CONTAINS(unknown(wide_big), "iconv -f utf-16be");
    EXPECT_CONTAINS(unknown(four_little), "iconv -f utf-32le");
    EXPECT_CONTAINS(unknown(four_big), "iconv -f utf-32be");
    // Russian in CP1251
    EXPECT_CONTAINS(unknown("\xCC\xEE\xF1\xEA\xE2\xE0 \xE3\xEE\xF0\xEE\xE4 \xE3\xE4\xE5"),
                    "another encoding");
    EXPECT_CONTAINS(unknown(std::string(5000, '\0')), "are NUL");
}

TEST(InputKind, TextPasses) {
    const std::string text = test::sample_text(20, 2);
    std::string latin, cut = text;
    for (int i = 0; i < 50; ++i)
        latin +=
            "gr\xFC\xDF"
            "e an den stra\xDF"
            "en ";
    while (cut.size() % 3 != 0) cut += 'x';
    const std::string cases[] = {
        text,
        latin,
        cut + "\xE6\xBC",
        "k\xE6\xBC",
        "\xEF\xBB\xBF" + text,
        "",
        "a\n",
        "\x1B[1mbold\x1B[0m and \f page",
        "\u6F22\u5B57\u304B\u306A\u4EA4\u3058\u308A\u6587",
        std::string(2000, 'a') + "\0"s + std::string(2000, 'b'),
        "PARENTS PAR1 and more",
        "PAR1 is a word",
        "GGUF is a format",
        "ORC\nELF\nDWARF\n",
        "BZh9 is how it begins",
        "BM and MZ",
        "RIFF in time",
        "Obj",
        "PK",
        "GIF is a picture",
        "FEA1 too",
        "%!PS-Adobe-3.0\n",
        "<html><body>",
        "swiftype",
        "P*M",
        "{\"a\": 1}",
        "\n%PDF-1.4 is how a PDF begins",
    };
    for (const std::string& bytes : cases) {
        EXPECT_EQ(known(bytes), "") << bytes.substr(0, 30);
        EXPECT_EQ(unknown(bytes), "") << bytes.substr(0, 30);
    }
}

}  // namespace
}  // namespace switchyard

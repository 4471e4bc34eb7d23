// Magic numbers as documented by their formats. Formats that share one (zip, RIFF, ISO media) are told apart
// by what is inside.
#include "io/tokens/input_kind.hpp"

#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/tokens/line_reader.hpp"

namespace switchyard {
namespace {

using namespace std::string_view_literals;

struct KnownKind {
    std::string_view magic;
    const char *name, *advice;
    std::size_t offset = 0;
    bool is_word = false;  // text may begin so too: bytes that text does not have must follow
};

constexpr const char* export_text =
    "write its text column as JSON lines, an object a line (pandas: to_json(orient=\"records\", lines=True))";
constexpr const char* unpack = "unpack it and name the text files in it";
constexpr const char* unpickle = "load it in Python and write its text";
constexpr const char* as_text = "save or convert it as plain text (pdftotext, pandoc)";
constexpr const char* no_text = "name files that hold text";
constexpr const char* arrays = "inputs are text; write the text that it stands for";

constexpr KnownKind kinds[] = {
    // Compressed files. HDF5 and PNG begin with bytes of their own, so the order matters only within a
    // family.
    {"\x1F\x8B"sv, "compressed with gzip", "pipe it: zcat FILE | switchyard tokenize - ..."},
    {"\x28\xB5\x2F\xFD"sv, "compressed with zstd", "pipe it: zstdcat FILE | switchyard tokenize - ..."},
    {"\xFD"
     "7zXZ\0"sv,
     "compressed with xz", "pipe it: xzcat FILE | switchyard tokenize - ..."},
    {"1AY&SY"sv, "compressed with bzip2", "pipe it: bzcat FILE | switchyard tokenize - ...", 4, true},
    {"\x17\x72\x45\x38\x50\x90"sv, "compressed with bzip2", "pipe it: bzcat FILE | switchyard tokenize - ...",
     4},
    {"\x04\x22\x4D\x18"sv, "compressed with lz4", "pipe it: lz4cat FILE | switchyard tokenize - ..."},
    {"LZIP\x01"sv, "compressed with lzip", "pipe it: lzip -dc FILE | switchyard tokenize - ..."},
    {"\x5D\0\0"sv, "compressed with lzma", "pipe it: xzcat FILE | switchyard tokenize - ..."},
    {"\x1F\x9D"sv, "compressed with compress", "pipe it: zcat FILE | switchyard tokenize - ..."},
    {"\xFF\x06\0\0sNaPpY"sv, "compressed with snappy", "decompress it first"},
    {"7z\xBC\xAF\x27\x1C"sv, "a 7z archive", unpack},
    {"Rar!\x1A\x07"sv, "a rar archive", unpack},
    {"ustar"sv, "a tar archive", unpack, 257, true},
    {"!<arch>\n"sv, "an ar archive", unpack},
    // Tables
    {"PAR1"sv, "a Parquet file", export_text, 0, true},
    {"PARE"sv, "an encrypted Parquet file", export_text, 0, true},
    {"ARROW1\0\0"sv, "an Arrow (Feather) file", export_text},
    {"FEA1"sv, "a Feather file", export_text, 0, true},
    {"\xFF\xFF\xFF\xFF"sv, "a stream of Arrow records or other binary data", export_text},
    {"ORC"sv, "an ORC file", export_text, 0, true},
    {"Obj\x01"sv, "an Avro file", export_text},
    {"SQLite format 3\0"sv, "an SQLite database", "select its text into a file of JSON lines"},
    {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an old Microsoft Office document", as_text},
    // Arrays and models
    {"\x93NUMPY"sv, "a NumPy array", arrays},
    {"\x89HDF\r\n\x1A\n"sv, "an HDF5 file",
     "inputs are text or JSON lines; a token file goes to --tokenizer"},
    {"\x89HDF\r\n\x1A\n"sv, "an HDF5 file", "inputs are text or JSON lines", 512},
    {"CDF\x01"sv, "a NetCDF file", arrays},
    {"CDF\x02"sv, "a NetCDF file", arrays},
    {"CDF\x05"sv, "a NetCDF file", arrays},
    {"MATLAB 5.0 MAT-file"sv, "a MATLAB file", arrays},
    {"MMIDIDX\0\0"sv, "an index of a Megatron dataset", arrays},
    {"GGUF"sv, "a GGUF model", no_text, 0, true},
    {"\x80\x02\x8A\x0Al\xFC\x9C\x46\xF9"sv, "a PyTorch file", arrays},
    {"\x80\x02"sv, "a Python pickle", unpickle},
    {"\x80\x03"sv, "a Python pickle", unpickle},
    {"\x80\x04"sv, "a Python pickle", unpickle},
    {"\x80\x05"sv, "a Python pickle", unpickle},
    {"}q\0"sv, "a Python pickle", unpickle},
    {"]q\0"sv, "a Python pickle", unpickle},
    {"(dp0\n"sv, "a Python pickle", unpickle},
    {"(lp0\n"sv, "a Python pickle", unpickle},
    {"ccopy_reg\n_reconstructor\n"sv, "a Python pickle", unpickle},
    // Documents, pictures, sound and films
    {"%PDF-"sv, "a PDF document", as_text},
    {"{\\rtf"sv, "a document in Rich Text Format", as_text},
    {"\x89PNG\r\n\x1A\n"sv, "a picture (PNG)", no_text},
    {"\xFF\xD8\xFF"sv, "a picture (JPEG)", no_text},
    {"GIF87a"sv, "a picture (GIF)", no_text},
    {"GIF89a"sv, "a picture (GIF)", no_text},
    {"II*\0"sv, "a picture (TIFF)", no_text},
    {"MM\0*"sv, "a picture (TIFF)", no_text},
    {"8BPS\0"sv, "a picture (Photoshop)", no_text},
    {"\0\0\x01\0"sv, "a picture (icon)", no_text},
    {"AT&TFORM"sv, "a document (DjVu)", as_text},
    {"OggS\0"sv, "sound or film (Ogg)", no_text},
    {"fLaC\0"sv, "sound (FLAC)", no_text},
    {"ID3\x03"sv, "sound (MP3)", no_text},
    {"ID3\x04"sv, "sound (MP3)", no_text},
    {"\x1A\x45\xDF\xA3"sv, "a film (Matroska)", no_text},
    {"ftyp"sv, "a film or picture (MP4, HEIC)", no_text, 4, true},
    // Programs
    {"\x7F"
     "ELF"sv,
     "a program or library (ELF)", no_text},
    {"\xFE\xED\xFA\xCE"sv, "a program (Mach-O)", no_text},
    {"\xFE\xED\xFA\xCF"sv, "a program (Mach-O)", no_text},
    {"\xCE\xFA\xED\xFE"sv, "a program (Mach-O)", no_text},
    {"\xCF\xFA\xED\xFE"sv, "a program (Mach-O)", no_text},
    {"\xCA\xFE\xBA\xBE"sv, "a program (Java or Mach-O)", no_text},
    {"\0asm"sv, "a program (WebAssembly)", no_text},
    {"MZ\x90\0"sv, "a program (Windows)", no_text},
    {"\xED\xAB\xEE\xDB"sv, "a package (RPM)", unpack},
    // Other encodings; those with four bytes come first
    {"\xFF\xFE\0\0"sv, "UTF-32", "convert it: iconv -f utf-32 -t utf-8"},
    {"\0\0\xFE\xFF"sv, "UTF-32", "convert it: iconv -f utf-32 -t utf-8"},
    {"\xFF\xFE"sv, "UTF-16", "convert it: iconv -f utf-16 -t utf-8"},
    {"\xFE\xFF"sv, "UTF-16", "convert it: iconv -f utf-16 -t utf-8"},
    // Text that stands for a file that is absent
    {"version https://git-lfs.github.com/spec/"sv, "a pointer of Git LFS, not the file itself",
     "fetch it: git lfs pull"},
};

bool holds(std::string_view bytes, std::string_view part) {
    return bytes.find(part) != std::string_view::npos;
}

/// Office documents, NumPy and PyTorch files are zip archives; their first entries tell them apart.
KnownKind kind_of_zip(std::string_view bytes) {
    if (holds(bytes, "[Content_Types].xml") || holds(bytes, "_rels/.rels") ||
        holds(bytes, "application/vnd.oasis.opendocument"))
        return {"", "an office document (zip)", as_text};
    if (holds(bytes, "application/epub+zip")) return {"", "a book (EPUB)", as_text};
    if (holds(bytes, "/data.pkl")) return {"", "a PyTorch file (zip)", arrays};
    if (holds(bytes.substr(0, 300), ".npy")) return {"", "NumPy arrays (npz)", arrays};
    return {"", "a zip archive", unpack};
}

/// True for eight bytes of length followed by a JSON object.
bool is_safetensors(std::string_view bytes) {
    return bytes.size() > 10 && bytes.substr(5, 3) == "\0\0\0"sv &&
           (bytes.substr(8, 2) == "{\"" || bytes.substr(8, 2) == "{}");
}

bool is_name(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// Eight bytes of length, four of its checksum, then the first field of a message.
bool is_tfrecord(std::string_view bytes) {
    return bytes.size() > 16 && bytes.substr(4, 4) == "\0\0\0\0"sv && bytes[12] == '\x0A';
}

/// Four bytes of length, then the type and name of the first member.
bool is_bson(std::string_view bytes) {
    const std::size_t end = bytes.find('\0', 5);
    return bytes.size() > 8 && bytes[3] == '\0' && bytes[4] >= 1 && bytes[4] <= 0x13 && end < 64 &&
           is_name(bytes.substr(5, end - 5));
}

/// A map, or arrays of maps, whose first name is a short text.
bool is_message_pack(std::string_view bytes) {
    const auto first = [&] { return bytes.empty() ? 0u : static_cast<unsigned char>(bytes[0]); };
    const auto drop = [&](std::size_t count) { bytes.remove_prefix(std::min(count, bytes.size())); };
    while ((first() & 0xF0) == 0x90 || first() == 0xDC || first() == 0xDD)
        drop(first() == 0xDC ? 3 : first() == 0xDD ? 5 : 1);
    if ((first() & 0xF0) != 0x80 && first() != 0xDE && first() != 0xDF) return false;
    drop(first() == 0xDE ? 3 : first() == 0xDF ? 5 : 1);
    const std::size_t length = first() & 0x1F;
    return (first() & 0xE0) == 0xA0 && bytes.size() > length && is_name(bytes.substr(1, length));
}

[[noreturn]] void refuse(const std::string& name, const char* kind, const char* advice) {
    fail("`{}` is {} (inputs are read as plain text in UTF-8); {}", name, kind, advice);
}

struct Census {
    std::size_t size = 0, nuls = 0, control = 0, invalid = 0;
    std::array<std::size_t, 4> nuls_at{};  // by position modulo 4
};

/// Counts whole characters; one that is cut at the end does not count.
Census census_of(std::string_view bytes) {
    Census count;
    count.size = bytes.size();
    for (std::size_t i = 0; i < bytes.size();) {
        const std::size_t length = utf8_at(bytes, i).bytes;
        const auto byte = static_cast<unsigned char>(bytes[i]);
        const bool layout = byte >= 0x07 && byte <= 0x0D;  // bell to carriage return, used for layout
        if (byte == 0) {
            ++count.nuls;
            ++count.nuls_at[i % 4];
        } else if (length == 1 &&
                   ((byte < 0x20 && !layout && byte != 0x1B && byte != 0x1E) || byte == 0x7F)) {
            ++count.control;
        } else if (length == 0 && i + 4 <= bytes.size()) {
            ++count.invalid;
        }
        i += std::max<std::size_t>(length, 1);
    }
    return count;
}

/// Latin text in UTF-16 or UTF-32 without a byte-order mark has NULs at the same places of every 2 or 4
/// bytes. Returns iconv's name of the encoding, or nullptr.
const char* wide_encoding(const Census& count) {
    const double quarter = 0.25 * static_cast<double>(count.size);
    const auto mask = [&] {
        // Bit k: position k of 4 is mostly NUL. Bit 4: some position is neither mostly NUL nor hardly ever.
        unsigned bits = 0;
        for (std::size_t k = 0; k < 4; ++k) {
            const double share = static_cast<double>(count.nuls_at[k]) / quarter;
            bits |= share > 0.5 ? 1u << k : share > 0.1 ? 1u << 4 : 0u;
        }
        return bits;
    }();
    switch (mask) {
        case 0b1010:
            return "utf-16le";
        case 0b0101:
            return "utf-16be";
        case 0b1110:
            return "utf-32le";
        case 0b0111:
            return "utf-32be";
        default:
            return nullptr;
    }
}

}  // namespace

void refuse_known_kinds(const std::string& name, std::string_view bytes) {
    const Census count = census_of(bytes);
    const bool has_foreign_bytes = count.nuls + count.control + count.invalid > 0;
    for (const KnownKind& kind : kinds)
        if (bytes.size() >= kind.offset && bytes.substr(kind.offset).starts_with(kind.magic) &&
            (has_foreign_bytes || !kind.is_word))
            refuse(name, kind.name, kind.advice);
    if (bytes.size() > 4 && bytes.substr(1, 3) == "\x2A\x4D\x18"sv &&
        (static_cast<unsigned char>(bytes[0]) & 0xF0) == 0x50)
        refuse(name, "compressed with zstd", "pipe it: zstdcat FILE | switchyard tokenize - ...");
    for (const std::string_view zip : {"PK\x03\x04"sv, "PK\x05\x06"sv, "PK\x07\x08"sv})
        if (bytes.starts_with(zip)) {
            const KnownKind kind = kind_of_zip(bytes);
            refuse(name, kind.name, kind.advice);
        }
    if (bytes.starts_with("RIFF") && bytes.size() >= 12)
        for (const std::string_view form : {"WEBP"sv, "WAVE"sv, "AVI "sv})
            if (bytes.substr(8, 4) == form) refuse(name, "a picture, sound or film (RIFF)", no_text);
    if (bytes.starts_with("BM") && bytes.size() >= 10 && bytes.substr(6, 4) == "\0\0\0\0"sv)
        refuse(name, "a picture (BMP)", no_text);
    if (is_safetensors(bytes)) refuse(name, "a safetensors file", arrays);
    if (is_tfrecord(bytes)) refuse(name, "a TFRecord file", export_text);
    if (is_bson(bytes)) refuse(name, "a BSON file", export_text);
    if (is_message_pack(bytes)) refuse(name, "a MessagePack file", export_text);
    if (holds(bytes.substr(0, 1024), "%PDF-1.") && holds(bytes, "\nendobj"))
        refuse(name, "a PDF document", as_text);
}

void refuse_unknown_binary(const std::string& name, std::string_view bytes) {
    const Census count = census_of(bytes);
    if (count.size == 0) return;
    const auto percent = [&](std::size_t part) {
        return 100.0 * static_cast<double>(part) / static_cast<double>(count.size);
    };
    if (const char* const encoding = wide_encoding(count))
        fail("`{}` looks like {} (inputs are read as UTF-8); convert it: iconv -f {} -t utf-8", name,
             encoding, encoding);
    require(percent(count.nuls) <= 0.1,
            "`{}` is binary: {} of its first {} bytes are NUL (inputs are read as plain text); name files of "
            "text, or give --format=text if this is one",
            name, count.nuls, count.size);
    require(percent(count.control) <= 10,
            "`{}` is binary: {} of its first {} bytes are control characters (inputs are read as plain "
            "text); name files of text, or give --format=text if this is one",
            name, count.control, count.size);
    require(percent(count.invalid) <= 25,
            "`{}` is binary or in another encoding: {} of its first {} bytes are not valid UTF-8 (each would "
            "become U+FFFD); convert it with iconv, or give --format=text to have them replaced",
            name, count.invalid, count.size);
    // Records of binary formats may be long texts, but begin with lengths.
    const Census beginning = census_of(bytes.substr(0, 16));
    require(
        beginning.nuls + beginning.control == 0,
        "`{}` is binary: NUL or control characters are among its first 16 bytes (inputs are read as plain "
        "text); name files of text, or give --format=text if this is one",
        name);
}

}  // namespace switchyard

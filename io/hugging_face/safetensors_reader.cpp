// Reads one file, and the files of a directory. The checks of a header need only its text and the file's
// size.

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "core/bf16.hpp"
#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/safetensors.hpp"

namespace switchyard {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "files are little-endian and read as they lie");

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the reference implementation
constexpr std::uint64_t length_bytes = 8;
constexpr std::size_t max_dimensions = 16;

struct TypeSize {
    const char* name;
    std::uint64_t bits;
};
constexpr TypeSize type_sizes[] = {
    {"F32", 32},    {"BF16", 16},   {"F16", 16},    {"F64", 64},    {"I64", 64},        {"U64", 64},
    {"I32", 32},    {"U32", 32},    {"I16", 16},    {"U16", 16},    {"I8", 8},          {"U8", 8},
    {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},      {"C64", 64},
};

/// Returns the header text of an open file; data_offset <- the position where values begin.
std::string read_header(int fd, const std::string& path, std::uint64_t file_bytes) {
    require(
        file_bytes >= length_bytes,
        "`{}` has {} bytes (a safetensors file begins with {} that give the length of its header); download "
        "it again",
        path, file_bytes, length_bytes);
    std::uint64_t length = 0;
    std::string error = read_fully(fd, reinterpret_cast<std::byte*>(&length), length_bytes, 0);
    require(error.empty(), "cannot read `{}` ({}); {}", path, error, reading_advice);
    constexpr std::string_view pointer = "version https://git-lfs";
    std::string start(std::min<std::uint64_t>(file_bytes, pointer.size()), '\0');
    error = read_fully(fd, reinterpret_cast<std::byte*>(start.data()), start.size(), 0);
    require(start != pointer,
            "`{}` is a pointer of Git LFS, not the file itself (it holds no weights); fetch it: git lfs pull",
            path);
    require(length <= max_header_bytes && length <= file_bytes - length_bytes,
            "`{}` says that its header has {} bytes (the file has {}, and {} are the most a header may have: "
            "it is truncated or not a safetensors file); download it again",
            path, length, file_bytes, max_header_bytes);
    std::string text(length, '\0');
    error = read_fully(fd, reinterpret_cast<std::byte*>(text.data()), length, length_bytes);
    require(error.empty(), "cannot read the header of `{}` ({}); {}", path, error, reading_advice);
    require(text.starts_with('{'),
            "`{}` has a header that does not begin with {{ (it is not a safetensors file); download it again",
            path);
    return text;
}

/// The size of a tensor in bytes. Throws UserError on overflow and if its bits do not fill whole bytes.
std::uint64_t bytes_of(const SafetensorsEntry& entry, const std::string& where) {
    const auto* type = std::find_if(std::begin(type_sizes), std::end(type_sizes),
                                    [&](const TypeSize& t) { return entry.dtype == t.name; });
    require(type != std::end(type_sizes),
            "{} has the type {}, which the format does not have (the file is "
            "damaged or newer than this program); download it again or convert it to F32",
            where, quoted(entry.dtype));
    std::uint64_t bits = type->bits;
    for (const std::int64_t extent : entry.shape)
        require(
            !__builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &bits) &&
                bits < std::uint64_t{1} << 62,
            "{} has a shape of more bytes than can be counted ({}: the file is damaged); download it again",
            where, fmt::join(entry.shape, " x "));
    require(
        bits % 8 == 0,
        "{} fills no whole number of bytes ({} values of {} bits: the file is damaged); download it again",
        where, entry.size(), type->bits);
    return bits / 8;
}

std::uint64_t whole_number(const json& value, const std::string& where, const char* what) {
    require(value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{1} << 62,
            "{} has {} that is not a whole number in range (the file is damaged); download it again", where,
            what);
    return value.get<std::uint64_t>();
}

SafetensorsEntry read_entry(const json& value, const std::string& where, std::uint64_t data_bytes) {
    require(
        value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
            value.contains("data_offsets"),
        "{} is not described by dtype, shape and data_offsets alone (the file is damaged); download it again",
        where);
    require(value["dtype"].is_string() && value["shape"].is_array(),
            "{} has a dtype that is not text or a shape that is not a list (the file is damaged); download "
            "it again",
            where);
    require(value["shape"].size() <= max_dimensions,
            "{} has {} dimensions ({} at most are read: the file is damaged); download it again", where,
            value["shape"].size(), max_dimensions);
    SafetensorsEntry entry;
    entry.dtype = value["dtype"].get<std::string>();
    for (const json& extent : value["shape"])
        entry.shape.push_back(static_cast<std::int64_t>(whole_number(extent, where, "a shape")));
    const json& offsets = value["data_offsets"];
    require(offsets.is_array() && offsets.size() == 2,
            "{} has data_offsets that are not two numbers (the file is damaged); download it again", where);
    entry.begin = whole_number(offsets[0], where, "an offset");
    entry.end = whole_number(offsets[1], where, "an offset");
    require(entry.begin <= entry.end && entry.end <= data_bytes,
            "{} has the data_offsets {} to {} (the file has {} bytes of values: it is truncated or damaged); "
            "download it again",
            where, entry.begin, entry.end, data_bytes);
    const std::uint64_t bytes = bytes_of(entry, where);
    require(
        bytes == entry.end - entry.begin,
        "{} has {} bytes for {} values of type {} ({} are needed: the file is damaged); download it again",
        where, entry.end - entry.begin, entry.size(), entry.dtype, bytes);
    return entry;
}

void check_metadata(const json& metadata, const std::string& path) {
    bool texts = metadata.is_object();
    for (const auto& value : metadata) texts = texts && value.is_string();
    require(texts,
            "`{}` has __metadata__ that does not map texts to texts (the file is damaged); download it again",
            path);
}

/// Checks that tensors follow each other without holes from the first byte to the last.
void check_cover(const std::map<std::string, SafetensorsEntry>& entries, const std::string& path,
                 std::uint64_t data_bytes) {
    std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
    for (const auto& item : entries) order.push_back(&item);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    std::uint64_t end = 0;
    std::string before = "the header";
    for (const auto* item : order) {
        const auto& [name, entry] = *item;
        require(entry.begin >= end,
                "`{}`: tensor {} begins at byte {}, inside {} (which ends at {}; tensors may "
                "not overlap: the file is damaged); download it again",
                path, quoted(name), entry.begin, before, end);
        require(entry.begin == end,
                "`{}`: {} bytes between {} and tensor {} belong to no tensor (the file is "
                "damaged); download it again",
                path, entry.begin - end, before, quoted(name));
        end = entry.end;
        before = "tensor " + quoted(name);
    }
    require(end == data_bytes,
            "`{}`: {} bytes after {} belong to no tensor (the file is damaged); download it again", path,
            data_bytes - end, before);
}

/// Exact; a NaN stays a NaN.
float from_f16(std::uint16_t bits) {
    const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 31u;
    const std::uint32_t fraction = bits & 0x3FFu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13);
    if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

template <class Stored, class Convert>
void widen(const std::vector<std::byte>& raw, std::int64_t count, float* out, Convert convert) {
    for (std::int64_t i = 0; i < count; ++i) {
        Stored value;
        std::memcpy(&value, raw.data() + i * sizeof value, sizeof value);
        out[i] = convert(value);
    }
}

std::string index_path(const std::string& directory) {
    return directory + "/model.safetensors.index.json";
}

/// The files of an index, each with the names that it should hold.
std::map<std::string, std::set<std::string>> read_index(const std::string& path) {
    const json index = read_json_object(path);
    require(index.contains("weight_map") && index["weight_map"].is_object(),
            "`{}` has no weight_map (it says which file holds which tensor); download it again", path);
    std::map<std::string, std::set<std::string>> files;
    for (const auto& [name, file] : index["weight_map"].items()) {
        require(file.is_string(), "`{}` names no file for tensor {} (it is damaged); download it again", path,
                quoted(name));
        const auto& file_name = file.get_ref<const std::string&>();
        const bool beside = !file_name.empty() && file_name != "." && file_name != ".." &&
                            file_name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
        require(beside,
                "`{}` puts tensor {} into {} (files of an index lie beside it); get a model from elsewhere",
                path, quoted(name), quoted(file_name));
        files[file_name].insert(name);
    }
    return files;
}

}  // namespace

std::int64_t SafetensorsEntry::size() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(open_regular(path)) {
    const std::uint64_t file_bytes = size_of_file(file_, path);
    const std::string text = read_header(file_, path, file_bytes);
    data_offset_ = length_bytes + text.size();
    const std::uint64_t data_bytes = file_bytes - data_offset_;
    const json header = parse_json_object(text, path);
    for (const auto& [name, value] : header.items()) {
        if (name == "__metadata__")
            check_metadata(value, path);
        else
            entries_[name] = read_entry(value, "`" + path + "`: tensor " + quoted(name), data_bytes);
    }
    check_cover(entries_, path, data_bytes);
}

void SafetensorsFile::read_f32(const std::string& name, std::int64_t first, std::int64_t count,
                               float* out) const {
    const SafetensorsEntry& entry = entries_.at(name);
    internal_check(first >= 0 && count >= 0 && first + count <= entry.size(), "values [{}, {}) of {}", first,
                   first + count, name);
    const bool wide = entry.dtype == "F32";
    require(
        wide || entry.dtype == "BF16" || entry.dtype == "F16",
        "`{}`: tensor {} is of type {} (weights are read from F32, BF16 and F16); convert the model first",
        path_, quoted(name), entry.dtype);
    if (count == 0) return;
    const std::size_t element = wide ? 4 : 2;
    std::vector<std::byte> raw(static_cast<std::size_t>(count) * element);
    const std::uint64_t offset = data_offset_ + entry.begin + static_cast<std::uint64_t>(first) * element;
    const std::string error = read_fully(file_, raw.data(), raw.size(), offset);
    require(error.empty(), "cannot read `{}` (tensor {}: {}); {}", path_, quoted(name), error,
            reading_advice);
    if (wide)
        std::memcpy(out, raw.data(), raw.size());
    else if (entry.dtype == "BF16")
        widen<bf16>(raw, count, out, to_f32);
    else
        widen<std::uint16_t>(raw, count, out, from_f16);
}

SafetensorsDirectory::SafetensorsDirectory(const std::string& path) {
    const std::string single = path + "/model.safetensors", index = index_path(path);
    const bool has_single = exists_at(single), has_index = exists_at(index);
    require(
        has_single || has_index,
        "`{}` has neither model.safetensors nor model.safetensors.index.json (weights are read from these; "
        "files of other kinds can run code); save the model as safetensors",
        path);
    require(!has_single || !has_index,
            "`{}` has model.safetensors and model.safetensors.index.json (it is unclear which is meant); "
            "move one of them away",
            path);
    if (has_single) {
        files_.emplace_back(single);
        for (const auto& [name, entry] : files_[0].entries()) place_[name] = 0;
        return;
    }
    for (const auto& [file, expected] : read_index(index)) {
        files_.emplace_back(path + "/" + file);
        const auto& entries = files_.back().entries();
        for (const std::string& name : expected) {
            require(entries.contains(name),
                    "`{}/{}` has no tensor {} (`{}` says that it does); download both again", path, file,
                    quoted(name), index);
            place_[name] = files_.size() - 1;
        }
        for (const auto& [name, entry] : entries)
            require(expected.contains(name),
                    "`{}/{}` holds tensor {} (`{}` does not name it there); download both again", path, file,
                    quoted(name), index);
    }
}

std::vector<std::string> SafetensorsDirectory::names() const {
    std::vector<std::string> result;
    for (const auto& [name, file] : place_) result.push_back(name);
    return result;
}

const SafetensorsEntry& SafetensorsDirectory::entry(const std::string& name) const {
    return file_of(name).entries().at(name);
}

}  // namespace switchyard

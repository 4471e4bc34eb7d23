// What one process does with checkpoint files: list, show, verify and compare them. Values are read block by
// block.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/error.hpp"
#include "io/checkpoint/catalog.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

/// Attributes of "/" that say where a file was written, not what it holds; diff ignores them.
constexpr std::array provenance_keys{"tp", "dp", "code_version", "host", "time", "mpi", "threads"};

constexpr std::int64_t block_bytes = 4 << 20;

class InputFile {
  public:
    explicit InputFile(const std::string& path) : path_(path), fd_(open_regular(path)) {}

    /// Values [first, first + count) of a dataset.
    void read(const std::string& name, const StoredDataset& dataset, std::int64_t first, std::int64_t count,
              std::vector<std::byte>& to) const {
        const std::size_t element = size_of(dataset.dtype);
        to.resize(count * element);
        const std::string error = read_fully(fd_, to.data(), to.size(), dataset.offset + first * element);
        require(error.empty(), "cannot read {} (dataset {}: {}); {}", path_, name, error, reading_advice);
    }

  private:
    std::string path_;
    FileDescriptor fd_;
};

template <class Work>
void for_blocks(const StoredDataset& dataset, Work work) {
    const std::int64_t step = block_bytes / static_cast<std::int64_t>(size_of(dataset.dtype));
    for (std::int64_t first = 0; first < dataset.size(); first += step)
        work(first, std::min(step, dataset.size() - first));
}

std::uint64_t stored_checksum(const InputFile& file, const std::string& name, const StoredDataset& dataset) {
    std::uint64_t sum = 0;
    std::vector<std::byte> block;
    for_blocks(dataset, [&](std::int64_t first, std::int64_t count) {
        file.read(name, dataset, first, count, block);
        sum += checksum_rows(block.data(), dataset.dtype, 1, count, first, count);
    });
    return sum;
}

double value_at(const std::vector<std::byte>& block, DType dtype, std::int64_t i) {
    const auto load = [&]<class T>(T value) {
        std::memcpy(&value, block.data() + i * sizeof(T), sizeof(T));
        return static_cast<double>(value);
    };
    switch (dtype) {
        case DType::f64:
            return load(double{});
        case DType::f32:
            return load(float{});
        case DType::i64:
            return load(std::int64_t{});
        case DType::i32:
            return load(std::int32_t{});
        case DType::u8:
            return load(std::uint8_t{});
        default:
            return load(std::int16_t{});
    }
}

struct Compared {
    std::int64_t different = 0;  // beyond the tolerance
    double largest_difference = 0, largest_value = 0;
    bool not_finite = false;
};

/// allowed < 0: every bit counts; else differences up to `allowed` are not counted.
Compared compare(const InputFile& a, const InputFile& b, const std::string& name, const StoredDataset& in_a,
                 const StoredDataset& in_b, double allowed) {
    Compared result;
    std::vector<std::byte> block_a, block_b;
    const std::size_t element = size_of(in_a.dtype);
    for_blocks(in_a, [&](std::int64_t first, std::int64_t count) {
        a.read(name, in_a, first, count, block_a);
        b.read(name, in_b, first, count, block_b);
        for (std::int64_t i = 0; i < count; ++i) {
            const double x = value_at(block_a, in_a.dtype, i), y = value_at(block_b, in_b.dtype, i);
            for (double value : {x, y})
                if (std::isfinite(value))
                    result.largest_value = std::max(result.largest_value, std::abs(value));
            if (std::memcmp(block_a.data() + i * element, block_b.data() + i * element, element) == 0)
                continue;
            const double difference = std::abs(x - y);
            if (!std::isfinite(difference))
                result.not_finite = true;
            else
                result.largest_difference = std::max(result.largest_difference, difference);
            result.different += !(difference <= allowed);
        }
    });
    return result;
}

std::string dataset_difference(const InputFile& a, const InputFile& b, const std::string& name,
                               const StoredDataset& in_a, const StoredDataset& in_b, double tolerance) {
    const auto kind = [](const StoredDataset& d) {
        return fmt::format("{} {}", name_of(d.dtype), fmt::join(d.shape, "x"));
    };
    if (in_a.dtype != in_b.dtype || in_a.shape != in_b.shape)
        return fmt::format("is {} in the first file, {} in the second", kind(in_a), kind(in_b));
    Compared found = compare(a, b, name, in_a, in_b, -1);
    if (found.different == 0) return {};
    if (tolerance > 0) found = compare(a, b, name, in_a, in_b, tolerance * found.largest_value);
    if (found.different == 0) return {};
    return fmt::format(
        "{} of {} values differ, largest difference {:.3g}, relative to the largest value {:.3g}{}",
        found.different, in_a.size(), found.largest_difference,
        found.largest_value > 0 ? found.largest_difference / found.largest_value : 0.0,
        found.not_finite ? ", some of them not finite" : "");
}

/// In a message: quoted, and not long.
std::string shown(const Attribute& value) {
    const auto* text = std::get_if<std::string>(&value);
    if (!text) return text_of(value);
    return text->size() <= 60 ? fmt::format("\"{}\"", *text)
                              : fmt::format("\"{}...\" ({} bytes)", text->substr(0, 60), text->size());
}

bool same(const Attribute& a, const Attribute& b, double tolerance) {
    const auto *x = std::get_if<double>(&a), *y = std::get_if<double>(&b);
    if (x && y && tolerance > 0) return std::abs(*x - *y) <= tolerance * std::max(std::abs(*x), std::abs(*y));
    if (x && y) return std::memcmp(x, y, sizeof *x) == 0;
    return a == b;
}

/// Names the first lines that differ if the values are long texts, such as the configuration.
std::string attribute_difference(const std::string& key, const Attribute& a, const Attribute& b) {
    const auto *x = std::get_if<std::string>(&a), *y = std::get_if<std::string>(&b);
    if (x && y && x->size() + y->size() > 120) {
        const auto parting = std::mismatch(x->begin(), x->end(), y->begin(), y->end()).first - x->begin();
        const auto line_of = [&](const std::string& text) {
            const std::size_t from = parting == 0 ? std::string::npos : text.rfind('\n', parting - 1);
            const std::size_t begin = from == std::string::npos ? 0 : from + 1;
            return text.substr(begin, std::min<std::size_t>(80, text.find('\n', begin) - begin));
        };
        return fmt::format("attribute {} differs, first at \"{}\" against \"{}\"", key, line_of(*x),
                           line_of(*y));
    }
    return fmt::format("attribute {} is {} in the first file, {} in the second", key, shown(a), shown(b));
}

template <class Map>
std::set<std::string> keys_of(const Map& a, const Map& b) {
    std::set<std::string> keys;
    for (const auto& [key, value] : a) keys.insert(key);
    for (const auto& [key, value] : b) keys.insert(key);
    return keys;
}

const char* only_in(bool first) {
    return first ? "only in the first file" : "only in the second file";
}

void compare_attributes(const Catalog& a, const Catalog& b, double tolerance,
                        std::vector<Difference>& differences) {
    for (const std::string& object : keys_of(a.attributes, b.attributes)) {
        const auto in_a = a.attributes.find(object), in_b = b.attributes.find(object);
        if (in_a == a.attributes.end() || in_b == b.attributes.end()) {
            differences.push_back({object, only_in(in_b == b.attributes.end())});
            continue;
        }
        for (const std::string& key : keys_of(in_a->second, in_b->second)) {
            if (object == "/" &&
                std::find(provenance_keys.begin(), provenance_keys.end(), key) != provenance_keys.end())
                continue;
            const auto x = in_a->second.find(key), y = in_b->second.find(key);
            if (x == in_a->second.end() || y == in_b->second.end())
                differences.push_back(
                    {object, fmt::format("attribute {} {}", key, only_in(y == in_b->second.end()))});
            else if (!same(x->second, y->second, tolerance))
                differences.push_back({object, attribute_difference(key, x->second, y->second)});
        }
    }
}

}  // namespace

std::string text_of(const Attribute& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
    if (const auto* real = std::get_if<double>(&value)) return fmt::format("{}", *real);
    return std::get<std::string>(value);
}

FileContents file_contents(const std::string& path) {
    const Catalog catalog = read_catalog(path);
    FileContents contents;
    contents.attributes = catalog.attributes;
    contents.file_bytes = catalog.file_bytes;
    for (const auto& [name, dataset] : catalog.datasets)
        contents.datasets.push_back({name, name_of(dataset.dtype), dataset.shape, dataset.bytes()});
    return contents;
}

std::vector<std::string> verify_file(const std::string& path) {
    std::vector<std::string> problems;
    const auto collect = [&](auto work) {
        try {
            work();
        } catch (const UnreadableError&) {
            throw;
        } catch (const UserError& error) {
            problems.push_back(error.what());
        }
    };
    collect([&] {
        const Catalog catalog = read_catalog(path);
        collect([&] { check_catalog(catalog, path); });
        const InputFile file(path);
        for (const auto& [name, dataset] : catalog.datasets)
            collect([&, &name = name, &dataset = dataset] {
                require(dataset.checksum.has_value(), "dataset {} has no checksum", name);
                require(*dataset.checksum == stored_checksum(file, name, dataset),
                        "dataset {} does not fit its checksum", name);
            });
    });
    return problems;
}

std::vector<Difference> diff_files(const std::string& a, const std::string& b, double tolerance) {
    const Catalog catalog_a = read_catalog(a), catalog_b = read_catalog(b);
    const InputFile file_a(a), file_b(b);
    std::vector<Difference> differences;
    compare_attributes(catalog_a, catalog_b, tolerance, differences);
    for (const auto& [name, in_a] : catalog_a.datasets) {
        const auto in_b = catalog_b.datasets.find(name);
        if (in_b == catalog_b.datasets.end()) continue;  // named with the objects
        std::string text = dataset_difference(file_a, file_b, name, in_a, in_b->second, tolerance);
        if (!text.empty()) differences.push_back({name, std::move(text)});
    }
    return differences;
}

std::string checkpoint_path(const std::string& directory, std::int64_t step) {
    return fmt::format("{}/step_{:08}.h5", directory, step);
}

std::vector<std::pair<std::int64_t, std::string>> list_checkpoints(const std::string& directory) {
    std::vector<std::pair<std::int64_t, std::string>> found;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        std::int64_t step = 0;
        const char* const begin = name.data() + std::min<std::size_t>(5, name.size());
        const auto [after, status] = std::from_chars(begin, name.data() + name.size(), step);
        // Only what checkpoint_path() makes: .partial, .damaged and others' names are left out.
        if (status == std::errc{} && step >= 0 &&
            name == std::filesystem::path(checkpoint_path("", step)).filename())
            found.emplace_back(step, entry->path().string());
    }
    require(!error || error == std::errc::no_such_file_or_directory,
            "cannot list the checkpoints in {} ({}); check the folder", directory, error.message());
    std::sort(found.rbegin(), found.rend());
    return found;
}

}  // namespace switchyard

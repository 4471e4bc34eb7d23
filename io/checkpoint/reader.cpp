// Reading: rank 0 reads the structure and broadcasts it, so that all ranks take the same decisions; values
// come window by window from all ranks' own descriptors, and their checksum is compared before anyone uses
// them.
#include <algorithm>
#include <cerrno>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "core/first_exception.hpp"
#include "core/sign_of_life.hpp"
#include "io/checkpoint/catalog.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/checkpoint/window_messages.hpp"
#include "io/checkpoint/windows.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

Shape shape_of(const StoredDataset& dataset) {
    return dataset.shape.size() == 1 ? Shape{dataset.shape[0]} : Shape{dataset.shape[0], dataset.shape[1]};
}

/// Throws on all ranks what the lowest rank that found damage says. `mine` is empty on ranks that found none.
void throw_damage(const Comm& world, const std::string& mine) {
    const FirstText found = first_text(world, mine);
    if (found.ranks == 0) return;
    const bool all = found.ranks == world.size();
    throw DamageError(found.text + (all ? "" : fmt::format(" [on rank {} of {}]", found.rank, world.size())));
}

/// Tables are small; a longer one was not written by this program.
constexpr std::uint64_t most_table_bytes = 16 << 20;

bool is_table(const StoredDataset& stored) {
    return stored.dtype == DType::i64 && stored.shape.size() == 1 && stored.bytes() <= most_table_bytes;
}

}  // namespace

struct CheckpointReader::State {
    Comm world;
    std::string path;
    std::uint64_t window_bytes = 0;
    FileDescriptor fd;
    Catalog catalog;
    std::map<std::string, std::vector<std::int64_t>> tables;

    /// What was asked for since the last fetch.
    struct Wanted {
        std::string dataset;
        DType as = DType::f32;
    };
    struct Wishes {
        std::vector<Wanted> datasets;
        std::vector<WantedPart> parts;
        FirstException problem;
    };
    std::unique_ptr<Wishes> wishes = std::make_unique<Wishes>();
    std::uint64_t peak_bytes = 0;

    bool root() const { return world.rank() == 0; }

    const StoredDataset& dataset(const std::string& name) const {
        const auto found = catalog.datasets.find(name);
        require(found != catalog.datasets.end(),
                "checkpoint {} has no dataset {} (it may be of another model or method); compare its "
                "configuration: `switchyard inspect`",
                path, name);
        return found->second;
    }

    [[noreturn]] void fail_damaged(const std::string& name) const {
        fail<DamageError>(
            "checkpoint {} is damaged (dataset {} does not fit its checksum); use another "
            "checkpoint",
            path, name);
    }

    /// Reads bytes of a dataset. Returns "" or the damage: the file ends too early, or the disk cannot return
    /// it. Throws UnreadableError where the system refuses.
    std::string read(const std::string& name, std::byte* to, ByteRange bytes) const {
        errno = 0;
        const std::string error = read_fully(fd, to, bytes.size(), bytes.begin);
        const bool of_disk = errno == 0 || errno == EIO;
        if (error.empty()) return {};
        std::string text = fmt::format("cannot read {} (dataset {}: {})", path, name, error);
        require<UnreadableError>(of_disk, "{}", text);
        return text;
    }

    /// On rank 0, for all.
    void read_tables() {
        for (const auto& [name, stored] : catalog.datasets) {
            if (!is_table(stored)) continue;
            std::vector<std::int64_t>& table = tables[name];
            table.resize(static_cast<std::size_t>(stored.size()));
            auto* const bytes = reinterpret_cast<std::byte*>(table.data());
            const std::string damage = read(name, bytes, {stored.offset, stored.offset + stored.bytes()});
            require<DamageError>(damage.empty(), "{}", damage);
            if (checksum_rows(bytes, DType::i64, 1, stored.size(), 0, stored.size()) != stored.checksum)
                fail_damaged(name);
        }
    }

    /// Rank 0, which has read the tables, broadcasts them one by one in the order of their names.
    void share_tables() {
        std::string all;
        for (const auto& [name, table] : tables)
            all.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(std::int64_t));
        all = broadcast(world, all);
        const char* next = all.data();
        for (const auto& [name, stored] : catalog.datasets) {
            if (!is_table(stored) || root()) continue;
            std::vector<std::int64_t>& table = tables[name];
            table.resize(static_cast<std::size_t>(stored.size()));
            std::memcpy(table.data(), next, stored.bytes());
            next += stored.bytes();
        }
    }

    void compare_sums(const std::vector<Wanted>& datasets, const std::vector<ReadSums>& mine) const {
        std::vector<std::uint64_t> words;
        for (const ReadSums& sum : mine) words.insert(words.end(), {sum.checksum, sum.values, sum.inexact});
        words = all_reduce_sum_u64(world, words);
        for (std::size_t i = 0; i < datasets.size(); ++i) {
            const std::string& name = datasets[i].dataset;
            const StoredDataset& stored = catalog.datasets.at(name);
            internal_check(words[3 * i + 1] == static_cast<std::uint64_t>(stored.size()),
                           "dataset {}: parts cover {} of {} values", name, words[3 * i + 1], stored.size());
            if (words[3 * i] != stored.checksum) fail_damaged(name);
            require<AgreedError>(words[3 * i + 2] == 0,
                                 "checkpoint {}: {} values of dataset {} are not exact as {} (they would "
                                 "change); use the run.dtype that wrote them",
                                 path, words[3 * i + 2], name, name_of(datasets[i].as));
        }
    }
};

CheckpointReader::CheckpointReader(const Comm& world, const std::string& path, std::uint64_t window_bytes)
    : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.world = world;
    s.path = path;
    s.window_bytes = window_bytes;
    std::string bytes, damage;
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        try {
            s.catalog = read_catalog(path);
            check_catalog(s.catalog, path);
            s.fd = open_regular(path);
            s.read_tables();
        } catch (const UnreadableError&) {
            throw;
        } catch (const UserError& error) {
            damage = error.what();
        }
        if (world.size() > 1) bytes = to_bytes(s.catalog);
    });
    throw_damage(world, damage);
    bytes = broadcast(world, bytes);
    if (world.rank() != 0) s.catalog = catalog_from_bytes(bytes);
    s.share_tables();
    agree_on(world, [&] {
        if (world.rank() != 0) try {
                s.fd = open_regular(path);
            } catch (const UserError& problem) {
                fail("{} (all ranks read it); check that every node sees it", without_advice(problem.what()));
            }
    });
}

CheckpointReader::~CheckpointReader() = default;

const std::string& CheckpointReader::path() const {
    return state_->path;
}

bool CheckpointReader::has(const std::string& dataset) const {
    return state_->catalog.datasets.contains(dataset);
}

std::vector<std::string> CheckpointReader::datasets() const {
    std::vector<std::string> names;
    for (const auto& [name, dataset] : state_->catalog.datasets) names.push_back(name);
    return names;
}

Shape CheckpointReader::shape(const std::string& dataset) const {
    return shape_of(state_->dataset(dataset));
}

bool CheckpointReader::has_attribute(const std::string& object, const std::string& key) const {
    const auto found = state_->catalog.attributes.find(object);
    return found != state_->catalog.attributes.end() && found->second.contains(key);
}

Attribute CheckpointReader::attribute(const std::string& object, const std::string& key) const {
    require(has_attribute(object, key),
            "checkpoint {} has no attribute {} at {} (it may be of another model or method); compare its "
            "configuration: `switchyard inspect`",
            path(), key, object);
    return state_->catalog.attributes.at(object).at(key);
}

template <class T>
T CheckpointReader::typed(const std::string& object, const std::string& key, const char* type) const {
    const Attribute value = attribute(object, key);
    const T* const typed_value = std::get_if<T>(&value);
    require(typed_value,
            "checkpoint {}: attribute {} at {} is not {} (the file was changed); use another checkpoint",
            path(), key, object, type);
    return *typed_value;
}

std::int64_t CheckpointReader::integer(const std::string& object, const std::string& key, std::int64_t least,
                                       std::int64_t most) const {
    const auto value = typed<std::int64_t>(object, key, "a whole number");
    require(value >= least && value <= most,
            "checkpoint {}: attribute {} at {} is {}, which is not from {} to {} (the file was changed); use "
            "another checkpoint",
            path(), key, object, value, least, most);
    return value;
}

double CheckpointReader::real(const std::string& object, const std::string& key) const {
    return typed<double>(object, key, "a real number");
}

std::string CheckpointReader::text(const std::string& object, const std::string& key) const {
    return typed<std::string>(object, key, "text");
}

void CheckpointReader::read(const std::string& name, const Shard& shard, Tensor values) const {
    want(name, shard, values);
    fetch();
}

void CheckpointReader::read(const std::string& name, const Shard& shard, const HostBlock& values) const {
    want_values(name, shard, PartValues(shard, values));
    fetch();
}

void CheckpointReader::want(const std::string& name, const Shard& shard, Tensor values) const {
    want_values(name, shard, PartValues(shard, values));
}

void CheckpointReader::want_values(const std::string& name, const Shard& shard, PartValues values) const {
    state_->wishes->problem.guard([&] {
        const std::string problem = values.problem();
        internal_check(problem.empty(), "dataset {}: {}", name, problem);
    });
    const DType as = values.dtype();
    want(name, shard.global, as,
         {.part = part_of(shard),
          .shared = shard.replicas != 1,
          .sink = [this, name, values = std::make_shared<PartValues>(std::move(values))](
                      auto first, auto count, const std::byte* packed) {
              return values->unpack(stored_type(name), first, count, packed);
          }});
}

void CheckpointReader::want(const std::string& name, const Shape& global, DType as, WantedPart wanted) const {
    State& s = *state_;
    State::Wishes& wishes = *s.wishes;
    wanted.dataset = wishes.datasets.size();
    wishes.datasets.push_back({name, as});
    wishes.problem.guard([&] {
        const StoredDataset& stored = s.dataset(name);
        require(shape_of(stored) == global,
                "checkpoint {}: dataset {} is {}, not {} (it may be of another model); compare its "
                "configuration: `switchyard inspect`",
                s.path, name, shape_of(stored).text(), global.text());
        require(readable_as(stored.dtype, as), "checkpoint {}: dataset {} holds {} values, not {}", s.path,
                name, name_of(stored.dtype), name_of(as));
    });
    if (s.world.size() == 1) wanted.shared = false;
    if (!wanted.part.empty()) wishes.parts.push_back(std::move(wanted));
}

DType CheckpointReader::stored_type(const std::string& name) const {
    return state_->dataset(name).dtype;
}

void CheckpointReader::fetch(const Progress& progress) const {
    State& s = *state_;
    const auto wishes = std::exchange(s.wishes, std::make_unique<State::Wishes>());
    const std::vector<State::Wanted>& wanted = wishes->datasets;
    std::vector<WantedPart>& parts = wishes->parts;
    agree_on(s.world, [&] { wishes->problem.rethrow(); });

    std::vector<Place> places;
    for (const State::Wanted& one : wanted) {
        const StoredDataset& stored = s.dataset(one.dataset);
        places.push_back(place_of(stored.offset, shape_of(stored), stored.dtype));
    }
    sort_by_place(parts, places);
    std::vector<ReadSums> sums(wanted.size());
    std::string damage;  // the first that this rank found
    const auto read = [&](std::size_t dataset, Run rows, std::byte* to) {
        const Place& place = places[dataset];
        const std::string problem = s.read(wanted[dataset].dataset, to, place.bytes_of(rows));
        if (damage.empty()) damage = problem;
        const std::int64_t values = rows.count * place.cols;
        sums[dataset].checksum += checksum_rows(to, s.dataset(wanted[dataset].dataset).dtype, 1, values,
                                                rows.begin * place.cols, values);
        sums[dataset].values += static_cast<std::uint64_t>(values);
    };
    const auto told = [&](std::uint64_t done, std::uint64_t all) {
        sign_of_life("reading a checkpoint");  // of ranks that had nothing to read, too
        if (progress) progress(done, all);
    };
    std::uint64_t peak = 0;
    agree_on(s.world, [&] {
        peak = spread_windows(s.world, places, parts, WindowPlan::for_loading(s.world.size(), s.window_bytes),
                              {read, told}, sums);
    });
    s.peak_bytes = std::max(s.peak_bytes, peak);
    throw_damage(s.world, damage);
    s.compare_sums(wanted, sums);
}

std::vector<std::int64_t> CheckpointReader::table(const std::string& name, std::size_t size) const {
    const StoredDataset& stored = state_->dataset(name);
    const auto found = state_->tables.find(name);
    require(found != state_->tables.end() && found->second.size() == size,
            "checkpoint {}: dataset {} is {} of {}, not {} of i64 (it may be of another model); compare its "
            "configuration: `switchyard inspect`",
            path(), name, shape_of(stored).text(), name_of(stored.dtype), size);
    return found->second;
}

int CheckpointReader::ranks() const {
    return state_->world.size();
}

std::uint64_t CheckpointReader::peak_bytes() const {
    return state_->peak_bytes;
}

}  // namespace switchyard

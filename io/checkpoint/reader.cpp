// Reading: rank 0 reads the structure and broadcasts it, so that all ranks take the same decisions; values
// come from all ranks' own descriptors and their checksum is compared before anyone uses them.
#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "io/checkpoint/catalog.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/file_parts.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

Shape shape_of(const StoredDataset& dataset) {
    return dataset.shape.size() == 1 ? Shape{dataset.shape[0]} : Shape{dataset.shape[0], dataset.shape[1]};
}

struct Wish {
    Part part;
    int first_replica = 0;
};

}  // namespace

struct CheckpointReader::State {
    Comm world;
    std::string path;
    FileDescriptor fd;
    Catalog catalog;

    const StoredDataset& dataset(const std::string& name) const {
        const auto found = catalog.datasets.find(name);
        require(found != catalog.datasets.end(),
                "checkpoint {} has no dataset {} (it is of another model or method?)", path, name);
        return found->second;
    }
};

CheckpointReader::CheckpointReader(const Comm& world, const std::string& path)
    : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.world = world;
    s.path = path;
    std::string bytes;
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        s.catalog = read_catalog(path);
        check_catalog(s.catalog, path);
        if (world.size() > 1) bytes = to_bytes(s.catalog);
    });
    bytes = broadcast(world, bytes);
    if (world.rank() != 0) s.catalog = catalog_from_bytes(bytes);
    agree_on(world, [&] {
        try {
            s.fd = open_regular(path);
        } catch (const UserError& problem) {
            fail("{} (all ranks read it); check that every node sees it", problem.what());
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
            "checkpoint {} has no attribute {} at {} (it is of another model or method?)", path(), key,
            object);
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
    PartValues part(shard, values);
    Pieces all;
    read_values(name, shard, part, all);
    finish(name, all);
}

void CheckpointReader::read(const std::string& name, const Shard& shard, const HostBlock& values) const {
    Pieces all;
    read_piece(name, shard, values, all);
    finish(name, all);
}

void CheckpointReader::read_piece(const std::string& name, const Shard& shard, const HostBlock& values,
                                  Pieces& so_far) const {
    PartValues part(shard, values);
    read_values(name, shard, part, so_far);
}

void CheckpointReader::read_values(const std::string& name, const Shard& shard, PartValues& values,
                                   Pieces& so_far) const {
    const State& s = *state_;
    agree_on(s.world, [&] {
        const StoredDataset& stored = s.dataset(name);
        require(shape_of(stored) == shard.global,
                "checkpoint {}: dataset {} is {}, not {} (it is of another model?)", s.path, name,
                shape_of(stored).text(), shard.global.text());
        require(shard.empty() || readable_as(stored.dtype, values.dtype()),
                "checkpoint {}: dataset {} holds {} values, not {}", s.path, name, name_of(stored.dtype),
                name_of(values.dtype()));
        const std::string problem = values.problem();
        internal_check(problem.empty(), "dataset {}: {}", name, problem);
    });
    const StoredDataset& stored = s.dataset(name);
    const std::int64_t rows = shard.global[0], cols = shard.global_cols();
    Wish mine;
    if (!shard.empty()) mine.part = {shard.row0, shard.rows, shard.col0, shard.cols};
    mine.first_replica = shard.replica == 0;
    std::vector<Part> parts;
    for (const Wish& wish : gather_values(s.world, mine)) {
        parts.push_back(wish.part);
        if (wish.first_replica) so_far.values += wish.part.area();
    }

    so_far.dtype = values.dtype();
    const FileArray array{s.fd, stored.offset, rows, cols, size_of(stored.dtype)};
    const std::string error =
        read_parts(s.world, parts, array, [&](auto first, auto count, const std::byte* from) {
            if (shard.replica == 0)
                so_far.checksum += checksum_rows(from, stored.dtype, count, shard.cols,
                                                 (shard.row0 + first) * cols + shard.col0, cols);
            so_far.inexact += values.unpack(stored.dtype, first, count, from);
        });
    agree(s.world, error.empty(), fmt::format("cannot read {} (dataset {}: {})", s.path, name, error));
}

void CheckpointReader::finish(const std::string& name, const Pieces& all) const {
    const State& s = *state_;
    const StoredDataset& stored = s.dataset(name);
    const std::int64_t size = shape_of(stored).size();
    internal_check(all.values == size, "dataset {}: parts cover {} of {} values", name, all.values, size);
    const std::uint64_t sum = all_reduce_sum_u64(s.world, all.checksum);
    const bool whole = stored.checksum == sum;
    agree(s.world, whole && all.inexact == 0,
          whole ? fmt::format("checkpoint {}: {} values of dataset {} are no {} values (they would change)",
                              s.path, all.inexact, name, name_of(all.dtype))
                : fmt::format("checkpoint {} is damaged (dataset {} does not fit its checksum); use another "
                              "checkpoint",
                              s.path, name));
}

}  // namespace switchyard

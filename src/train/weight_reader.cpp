// Work space is taken for one weight at a time, so a read needs little more memory than the largest weight.
#include "train/weight_reader.hpp"

#include <algorithm>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "train/node_memory.hpp"
#include "train/stored_linear.hpp"

namespace switchyard {
namespace {

std::string stem(const std::string& weight_name) {
    return weight_name.substr(0, weight_name.size() - std::string(".weight").size());
}

}  // namespace

WeightReader::WeightReader(const ModelContext& context, const CheckpointReader& reader,
                           CheckpointReader::Progress progress)
    : context_(context), reader_(reader), progress_(std::move(progress)) {
    stored_compute_ = dtype_from_name(reader.text("/", "dtype"));
    stored_ = accumulate_type(stored_compute_);
    for (const std::string& path : reader.datasets())
        if (path.starts_with("/model/")) all_bytes_ += bytes_of(path);
}

std::uint64_t WeightReader::bytes_of(const std::string& path) const {
    return static_cast<std::uint64_t>(reader_.shape(path).size()) * size_of(reader_.stored_type(path));
}

void WeightReader::fetch(const std::string& path, const Shard& part, Tensor out) const {
    reader_.want(path, part, out);
    reader_.fetch([this](std::uint64_t done, std::uint64_t) {
        if (progress_) progress_(std::min(read_bytes_ + done, all_bytes_), all_bytes_);
    });
    read_bytes_ += bytes_of(path);
}

void WeightReader::finish() const {
    if (progress_) progress_(all_bytes_, all_bytes_);
}

void WeightReader::read(const Shard& part, Tensor out) const {
    const Topology& topology = context_.topology;
    const std::string path = "/model/" + part.name;
    require(reader_.has(path),
            "checkpoint `{}` has no {} (it is of another model); give a checkpoint of the same model",
            reader_.path(), part.name);
    require(reader_.shape(path) == part.global,
            "{} is {} in checkpoint `{}` and {} in this model (weights do not fit); give a checkpoint of the "
            "same model",
            part.name, reader_.shape(path).text(), reader_.path(), part.global.text());
    Shard s = part;
    // Each part is checked against the checksum by one rank that holds it. Where the part is the whole
    // weight, all ranks hold it.
    const bool whole = s.rows * s.cols == s.global.size();
    s.replica = whole ? topology.world.rank() : part.replica;
    kernels::zero(out);
    if (out.dtype() == stored_) return fetch(path, s, out);
    Tensor wide;
    const Arena arena =
        allocate_scratch([&](Arena& a) { wide = a.take(MemoryClass::workspace, stored_, out.shape()); });
    fetch(path, s, wide);
    kernels::copy(wide, out);
}

namespace {

/// to (k r, w) <- 0, and in block i of its rows those columns of factor (r, w) that belong to mini i: `size`
/// columns of the whole factor, of which column 0 here is number `first`.
void spread_blocks(Tensor factor, std::int64_t size, std::int64_t first, std::int64_t count, Tensor to) {
    const std::int64_t r = factor.dim(0);
    kernels::zero(to);
    kernels::RowBatch batch;
    for (std::int64_t at = 0; at < count;) {
        const std::int64_t mini = (first + at) / size,
                           width = std::min(count - at, (mini + 1) * size - first - at);
        batch.copy({factor, kernels::Rows::range(0, r), at, width},
                   {to, kernels::Rows::range(mini * r, r), at, width});
        at += width;
    }
    batch.run();
}

}  // namespace

void WeightReader::form_effective(const Shard& part, Tensor out) const {
    const std::string name = stem(part.name);
    const StoredLinear stored = stored_linear(reader_, name);
    if (stored.alone()) return;
    const std::int64_t r = stored.low_rank, cols = out.dim(1), rows = out.dim(0);
    const Topology& topology = context_.topology;
    // A is never cut over dp. B and the row factors are cut like the weight's rows; in a row-parallel linear
    // these are cut over dp alone, if at all.
    const int replica_rows = part.cols < part.global[1] ? topology.tp_rank() : part.replica;
    kernels::EffectiveWeight effective{.base = stored.base};
    Tensor a, b, turned_b;
    const Arena arena = allocate_scratch([&](Arena& arena) {
        const auto take = [&](Shape shape) {
            return arena.take(MemoryClass::workspace, context_.accumulate(), shape);
        };
        const std::int64_t slots = stored.minis * r;
        if (r > 0) effective.factors = {take({slots, cols}), take({slots, rows}), stored.scale};
        if (r > 0) b = take({rows, r});
        if (stored.minis > 1) a = take({r, cols}), turned_b = take({r, rows});
        if (stored.gate) effective.gate = take({r});
        if (stored.row_scale) effective.row_scale = take({rows});
    });
    if (r > 0) {
        const bool blocks = stored.minis > 1;
        factor({name + ".lora_A", {r, part.global[1]}, 0, part.col0, r, part.cols, topology.dp_rank()},
               blocks ? a : effective.factors.a);
        factor({name + ".lora_B", {part.global[0], r}, part.row0, 0, part.rows, r, replica_rows}, b);
        kernels::transpose(b, blocks ? turned_b : effective.factors.b_transposed);
        if (blocks) {
            spread_blocks(a, part.global[1] / stored.minis, part.col0, part.cols, effective.factors.a);
            spread_blocks(turned_b, part.global[0] / stored.minis, part.row0, part.rows,
                          effective.factors.b_transposed);
        }
    }
    if (stored.gate) read({name + ".lora_gate", {r}, 0, 0, r, 1, 0}, effective.gate);
    if (stored.row_scale)
        read({name + ".row_scale", {part.global[0]}, part.row0, 0, part.rows, 1, replica_rows},
             effective.row_scale);
    kernels::form_in_order(out, effective);
}

void WeightReader::factor(const Shard& part, Tensor out) const {
    read(part, out);
    Tensor rounded;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { rounded = a.take(MemoryClass::workspace, stored_compute_, out.shape()); });
    kernels::copy(out, rounded);
    kernels::copy(rounded, out);
}

void WeightReader::weight(const Shard& part, bool merged, Tensor out) const {
    read(part, out);
    if (merged && part.name.ends_with(".weight") && part.global.rank() == 2) form_effective(part, out);
}

void WeightReader::parameter(const Parameter& p, bool merged, Tensor out) const {
    Shard part = p.shard;
    part.replica = context_.topology.dp_rank();
    if (!p.transposed) return weight(part, merged, out);
    part.global = {part.global[1], part.global[0]};
    std::swap(part.row0, part.col0);
    std::swap(part.rows, part.cols);
    Tensor stored;
    const Arena arena = allocate_scratch([&](Arena& a) {
        stored = a.take(MemoryClass::workspace, context_.accumulate(), {out.dim(1), out.dim(0)});
    });
    weight(part, merged, stored);
    kernels::transpose(stored, out);
}

void WeightReader::parameter(const Parameter& p, Tensor out) const {
    parameter(p, true, out);
}

void WeightReader::parameter(Parameter& p) const {
    Tensor full;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { full = a.take(MemoryClass::workspace, context_.accumulate(), p.value.shape()); });
    parameter(p, false, full);
    kernels::copy(full, p.value);
}

void WeightReader::frozen_base(Linear& linear, bool merged) const {
    const FrozenBase& base = linear.base();
    const Shape kept = base.words.hi.shape();
    const Shard part = linear.base_shard(context_);
    Tensor full;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { full = a.take(MemoryClass::workspace, context_.accumulate(), kept); });
    weight(part, merged, full);
    kernels::store_frozen(full, base.words);
}

}  // namespace switchyard

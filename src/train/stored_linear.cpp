// Files of plain low-rank products have no description, only factors and scale.
#include "train/stored_linear.hpp"

#include <algorithm>
#include <sstream>

#include "core/error.hpp"

namespace switchyard {
namespace {

constexpr const char* description = "effective_weight";

/// The datasets of a linear that determine its function, by suffix; without a description those of a plain
/// product.
std::set<std::string> parts_of(const CheckpointReader& reader, const std::string& weight) {
    if (!reader.has_attribute(weight, description)) return {"lora_A", "lora_B"};
    std::istringstream words(reader.text(weight, description));
    std::set<std::string> parts;
    for (std::string word; words >> word;) parts.insert(word);
    const std::set<std::string> known{"lora_A", "lora_B", "minis", "lora_gate", "row_scale", "lora_bias"};
    for (const std::string& part : parts)
        require(
            part != "none",
            "checkpoint `{}` holds {} of which its method says no effective weight (its map is not a product "
            "with a matrix); this method's weights cannot be used elsewhere",
            reader.path(), weight);
    for (const std::string& part : parts)
        require(known.contains(part),
                "checkpoint `{}` describes {} by {} (this program does not know that part of an effective "
                "weight, and without it the model would compute something else); use the program that wrote "
                "the file",
                reader.path(), weight, part);
    return parts;
}

}  // namespace

StoredLinear stored_linear(const CheckpointReader& reader, const std::string& linear) {
    const std::string stem = "/model/" + linear, weight = stem + ".weight", a = stem + ".lora_A";
    const std::set<std::string> parts = parts_of(reader, weight);
    StoredLinear result;
    if (parts.contains("lora_A") && reader.has(a)) {
        result.low_rank = reader.shape(a)[0];
        result.scale = reader.real(a, "scale");
        const Shape shape = reader.shape(weight);
        if (parts.contains("minis"))
            result.minis = reader.integer(a, "minis", 1, std::min(shape[0], shape[1]));
        require(shape[0] % result.minis == 0 && shape[1] % result.minis == 0,
                "checkpoint `{}` says that {} has {} minis (they do not divide its {}); the file is damaged, "
                "or another program wrote it",
                reader.path(), a, result.minis, shape.text());
    }
    result.gate = parts.contains("lora_gate");
    result.row_scale = parts.contains("row_scale");
    result.bias = parts.contains("lora_bias");
    result.magnitude = result.row_scale && reader.has(stem + ".lora_magnitude");
    if (reader.has_attribute(weight, "base_factor")) result.base = reader.real(weight, "base_factor");
    return result;
}

void require_understood(const CheckpointReader& reader, const std::set<std::string>& weights) {
    for (const DatasetInfo& dataset : file_contents(reader.path()).datasets) {
        constexpr std::string_view group = "/model/";
        if (!dataset.path.starts_with(group)) continue;
        const std::string name = dataset.path.substr(group.size());
        if (weights.contains(name)) continue;
        const std::size_t dot = name.rfind('.');
        const std::string weight = name.substr(0, dot) + ".weight";
        // If there is a description, what it does not list belongs to the method alone.
        const bool described =
            weights.contains(weight) && reader.has_attribute("/model/" + weight, description);
        const bool part = weights.contains(weight) && dot != std::string::npos &&
                          parts_of(reader, "/model/" + weight).contains(name.substr(dot + 1));
        require(described || part,
                "checkpoint `{}` holds {} (it is neither a weight of the model nor a known part of one, and "
                "without it the model would compute something else); this method's weights cannot be used "
                "elsewhere",
                reader.path(), dataset.path);
    }
}

void describe_linear(StateIo& io, const Linear& linear, const Topology& topology) {
    const std::optional<kernels::EffectiveWeight> effective = linear.adapter()->effective_weight();
    const std::string weight = "/model/" + linear.name() + ".weight";
    if (!effective) return io.note(weight, description, std::string("none"));
    const bool bias = !linear.adapter()->bias().empty();
    if (effective->plain() && !bias) return;
    std::string parts;
    if (!effective->factors.a.empty()) parts += "lora_A lora_B ";
    if (!effective->gate.empty()) parts += "lora_gate ";
    if (!effective->row_scale.empty()) parts += "row_scale ";
    if (bias) parts += "lora_bias ";
    io.note(weight, description, parts);
    io.note(weight, "base_factor", effective->base);
    if (effective->row_scale.empty() || io.loading()) return;  // recomputed from what is loaded
    const Extent& out = linear.out();
    // In a row-parallel linear all tp ranks have all rows.
    const bool cut = linear.split() == Split::column;
    const Shard rows{linear.name() + ".row_scale",
                     {out.size},
                     out.begin,
                     0,
                     out.count,
                     1,
                     cut ? topology.dp_rank() : topology.world.rank()};
    io.tensor("/model/" + rows.name, rows, effective->row_scale);
}

}  // namespace switchyard

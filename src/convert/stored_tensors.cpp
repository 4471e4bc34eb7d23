// A stored tensor that follows from other tensors or from config.json is accepted if it has the values that
// follow; other bits for the same values are accepted too.
#include "convert/stored_tensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "core/output.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {
namespace {

constexpr const char* embedding = "model.embed_tokens.weight";
constexpr const char* output_head = "lm_head.weight";

/// True for the tables of rotary angles that old files store.
bool holds_angles(const std::string& name) {
    return name.ends_with("rotary_emb.inv_freq");
}

std::string list_of(const std::vector<std::string>& names) {
    constexpr std::size_t most = 8;
    std::vector<std::string> shown;
    for (std::size_t i = 0; i < std::min(most, names.size()); ++i) shown.push_back(quoted(names[i]));
    const std::string rest = names.size() > most ? fmt::format(" and {} more", names.size() - most) : "";
    return fmt::format("{}{}", fmt::join(shown, ", "), rest);
}

std::string tensors(std::size_t count) {
    return fmt::format("{} tensor{}", count, count == 1 ? "" : "s");
}

void check_shape(const SafetensorsDirectory& source, const std::string& name, const Shape& expected) {
    const SafetensorsEntry& entry = source.entry(name);
    std::vector<std::int64_t> shape;
    for (int i = 0; i < expected.rank(); ++i) shape.push_back(expected[i]);
    require(
        entry.shape == shape,
        "`{}`: tensor {} is {}, but {} by config.json (they are of different models); download the directory "
        "again",
        source.file_of(name).path(), quoted(name), fmt::join(entry.shape, "x"), expected.text());
    float none = 0;
    source.file_of(name).read_f32(name, 0, 0, &none);  // reads nothing, but refuses types that cannot be read
}

/// The first index at which two tensors of one shape differ; -1 if they are equal.
std::int64_t first_difference(const SafetensorsDirectory& source, const std::string& a,
                              const std::string& b) {
    constexpr std::int64_t block = 1 << 20;
    const std::int64_t size = source.entry(a).size();
    std::vector<float> of_a(static_cast<std::size_t>(std::min(block, size))), of_b(of_a.size());
    for (std::int64_t first = 0; first < size; first += block) {
        const std::int64_t count = std::min(block, size - first);
        source.file_of(a).read_f32(a, first, count, of_a.data());
        source.file_of(b).read_f32(b, first, count, of_b.data());
        for (std::int64_t i = 0; i < count; ++i)  // bits are compared, because a NaN is not equal to itself
            if (std::memcmp(&of_a[static_cast<std::size_t>(i)], &of_b[static_cast<std::size_t>(i)],
                            sizeof(float)) != 0)
                return first + i;
    }
    return -1;
}

/// The head of a tied model must equal its embedding.
void check_tied_head(const SafetensorsDirectory& source, const Shape& shape) {
    check_shape(source, output_head, shape);
    const std::int64_t at = first_difference(source, embedding, output_head);
    require(at < 0,
            "`{}`: tensor {} differs from {} at value {}, but config.json has tie_word_embeddings = true "
            "(one tensor cannot be both); set it to false if the head is one of its own",
            source.file_of(output_head).path(), quoted(output_head), quoted(embedding), at);
}

/// True if the table is theta^(-2i / head size) within the precision of bf16 and f16: relative 2^-8, absolute
/// 2^-24 for subnormals.
bool angles_fit(const SafetensorsDirectory& source, const std::string& name, const ModelConfig& model) {
    const std::int64_t head = model.hidden_size / model.num_heads, count = head / 2;
    if (source.entry(name).shape != std::vector<std::int64_t>{count}) return false;
    std::vector<float> stored(static_cast<std::size_t>(count));
    source.file_of(name).read_f32(name, 0, count, stored.data());
    for (std::int64_t i = 0; i < count; ++i) {
        const double expected =
            std::pow(model.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(head));
        const double error = std::abs(stored[static_cast<std::size_t>(i)] - expected);
        if (!(error <= 0x1p-7 * expected + 0x1p-23)) return false;
    }
    return true;
}

/// transformers recomputes the tables from rope_theta. Warns if a model was trained with others.
void compare_angles(const SafetensorsDirectory& source, const std::vector<std::string>& names,
                    const ModelConfig& model) {
    for (const std::string& name : names) {
        if (angles_fit(source, name, model)) continue;
        print_error(
            "warning: `{}`: tensor {} holds other angles than rope_theta = {} gives; config.json is "
            "followed, as transformers does: compare the loss of a known text",
            source.file_of(name).path(), quoted(name), model.rope_theta);
        return;  // the tables of all layers are equal
    }
}

}  // namespace

std::map<std::string, std::string> find_stored_tensors(const std::string& directory,
                                                       const SafetensorsDirectory& source,
                                                       const ModelConfig& model,
                                                       const std::vector<Shard>& weights) {
    const bool tied = model.tie_embeddings, has_head = source.has(output_head);
    std::map<std::string, std::string> stored;
    std::vector<std::string> missing, surplus, angles;
    for (const Shard& weight : weights) {
        const bool head_alone = tied && weight.name == embedding && !source.has(embedding) && has_head;
        stored[weight.name] = head_alone ? output_head : weight.name;
        if (!source.has(stored[weight.name])) missing.push_back(weight.name);
    }
    for (const std::string& name : source.names()) {
        if (holds_angles(name))
            angles.push_back(name);
        else if (!stored.contains(name) && !(tied && name == output_head))
            surplus.push_back(name);
    }
    const char* whole = "(the model of its config.json has exactly its own tensors)";
    require(missing.empty(), "`{}` lacks {} {}: {}; download it again", directory, tensors(missing.size()),
            whole, list_of(missing));
    require(surplus.empty(), "`{}` has {} too many {}: {}; they cannot be imported", directory,
            tensors(surplus.size()), whole, list_of(surplus));
    for (const Shard& weight : weights) {
        check_shape(source, stored[weight.name], weight.global);
        if (tied && weight.name == embedding && source.has(embedding) && has_head)
            check_tied_head(source, weight.global);
    }
    compare_angles(source, angles, model);
    return stored;
}

}  // namespace switchyard

// The header is in the attributes of "/" and "/data". `diff` ignores those that tell only the provenance.
#include "train/checkpoint_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/version.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t format_version = 1;
constexpr std::string_view layers = "/model/model.layers.";
constexpr const char *embedding = "/model/model.embed_tokens.weight",
                     *gate_weight = "/model/model.layers.0.mlp.gate_proj.weight",
                     *key_weight = "/model/model.layers.0.self_attn.k_proj.weight";

}  // namespace

std::string fingerprint_text(std::uint64_t fingerprint) {
    return fmt::format("{:016x}", fingerprint);
}

DataIdentity identity_of(const TokenFileInfo& info) {
    return {fingerprint_text(info.fingerprint), fingerprint_text(info.tokenizer_fingerprint),
            info.begin_token, info.end_token};
}

std::string begin_token_warning(const DataIdentity& model, const std::string& checkpoint,
                                const TokenFile& tokens) {
    const std::int32_t here = tokens.info().begin_token, there = model.begin_token.value_or(here);
    if (here == there) return "";
    const auto begin = [](std::int32_t id) {
        return id < 0 ? std::string("with no begin token") : fmt::format("with begin token {}", id);
    };
    return fmt::format(
        "documents start {} in `{}`, but {} for the model of `{}` (losses at the start of documents are "
        "higher for it); tokenize with --tokenizer of the model's directory or token file",
        begin(here), tokens.path(), begin(there), checkpoint);
}

void write_header(CheckpointWriter& writer, const CheckpointHeader& header, std::uint64_t seed,
                  const Topology& topology) {
    writer.attribute("/", "format_version", format_version);
    writer.attribute("/", "step", header.step);
    writer.attribute("/", "tokens_seen", header.tokens_seen);
    writer.attribute("/", "seed", static_cast<std::int64_t>(seed));
    writer.attribute("/", "dtype", header.dtype);
    writer.attribute("/", "config", header.config);
    // The provenance, which may differ between files of equal content.
    writer.attribute("/", "tp", std::int64_t{topology.tp_size()});
    writer.attribute("/", "dp", std::int64_t{topology.dp_size()});
    writer.attribute("/", "code_version", version_text());
    writer.attribute("/", "host", host_name());
    writer.attribute("/", "time", utc_time());
    writer.attribute("/data", "next_sample", header.next_sample);
    writer.attribute("/data", "token_fingerprint", header.data.tokens);
    writer.attribute("/data", "tokenizer_fingerprint", header.data.tokenizer);
    if (header.data.begin_token)
        writer.attribute("/data", "begin_token", std::int64_t{*header.data.begin_token});
    if (header.data.end_token) writer.attribute("/data", "end_token", std::int64_t{*header.data.end_token});
}

namespace {

/// The attribute is missing in files of earlier versions.
std::optional<std::int32_t> stored_token(const CheckpointReader& reader, const char* key) {
    if (!reader.has_attribute("/data", key)) return std::nullopt;
    return static_cast<std::int32_t>(
        reader.integer("/data", key, -1, std::numeric_limits<std::int32_t>::max()));
}

/// The number of layers that have datasets; a missing layer before the last one counts too.
std::int64_t num_layers(const CheckpointReader& reader) {
    std::int64_t count = 0;
    for (const std::string& name : reader.datasets()) {
        std::int64_t layer = 0;
        if (!name.starts_with(layers)) continue;
        const auto [after, error] =
            std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
        if (error == std::errc{} && layer >= 0 && layer < last_possible_step)
            count = std::max(count, layer + 1);
    }
    return count;
}

void check_names(const CheckpointHeader& header, const std::string& path, const ModelConfig& model) {
    if (header.layers < 0) return;
    const Shape& found = header.embedding;
    require(model.num_layers == header.layers && found.rank() == 2 && found[0] == model.vocab_size &&
                found[1] == model.hidden_size,
            "checkpoint `{}` holds {} layers and an embedding {}, its configuration says {} layers and {}x{} "
            "(one of them was changed); use another checkpoint",
            path, header.layers, found.text(), model.num_layers, model.vocab_size, model.hidden_size);
    const auto compare = [&](const Shape& weight, const char* name, std::int64_t rows) {
        require(weight.rank() == 0 || weight == Shape{rows, model.hidden_size},
                "checkpoint `{}` holds {} of {}, its configuration says {}x{} (one of them was changed); use "
                "another checkpoint",
                path, name, weight.text(), rows, model.hidden_size);
    };
    compare(header.gate, gate_weight, model.ffn_size);
    if (model.num_heads > 0) compare(header.key, key_weight, model.kv_size());
}

}  // namespace

CheckpointHeader header_of(const CheckpointReader& reader) {
    // Products of these numbers, in samples and tokens, fit into 64 bits.
    constexpr std::int64_t most = std::int64_t{1} << 60;
    const std::int64_t version = reader.integer("/", "format_version", 0, most);
    require(version == format_version,
            "checkpoint `{}` has format version {} (this program reads version {}); use the program that "
            "wrote it",
            reader.path(), version, format_version);
    CheckpointHeader header;
    header.step = reader.integer("/", "step", 0, last_possible_step);
    header.tokens_seen = reader.integer("/", "tokens_seen", 0, most);
    header.config = reader.text("/", "config");
    header.dtype = reader.text("/", "dtype");
    header.next_sample = reader.integer("/data", "next_sample", 0, most);
    header.data = {reader.text("/data", "token_fingerprint"), reader.text("/data", "tokenizer_fingerprint"),
                   stored_token(reader, "begin_token"), stored_token(reader, "end_token")};
    header.layers = num_layers(reader);
    for (const auto& [name, shape] :
         {std::pair(embedding, &header.embedding), std::pair(gate_weight, &header.gate),
          std::pair(key_weight, &header.key)})
        if (reader.has(name)) *shape = reader.shape(name);
    return header;
}

CheckpointHeader read_header(const Comm& world, const std::string& path) {
    const CheckpointReader reader(world, path);
    return agreed(world, [&] { return header_of(reader); });
}

Config stored_config(const CheckpointHeader& header, const std::string& path,
                     const std::vector<std::string>& arguments) {
    Config config =
        parse_stored_config(header.config, "the configuration in " + path, arguments, method_options());
    check_names(header, path, config.model);
    resolve_auto(config);  // because files of earlier versions have dense_lr = 0
    return config;
}

}  // namespace switchyard

// Attributes of "/" and "/data"; `diff` ignores those of provenance.
#include "train/checkpoint_header.hpp"

#include <fmt/format.h>

#include <limits>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/version.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t format_version = 1;

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
    // Provenance: may differ between files of equal content.
    writer.attribute("/", "tp", std::int64_t{topology.tp_size()});
    writer.attribute("/", "dp", std::int64_t{topology.dp_size()});
    writer.attribute("/", "code_version", version_text());
    writer.attribute("/", "host", broadcast(topology.world, host_name()));
    writer.attribute("/", "time", broadcast(topology.world, utc_time()));
    writer.attribute("/data", "next_sample", header.next_sample);
    writer.attribute("/data", "token_fingerprint", header.data.tokens);
    writer.attribute("/data", "tokenizer_fingerprint", header.data.tokenizer);
    if (header.data.begin_token)
        writer.attribute("/data", "begin_token", std::int64_t{*header.data.begin_token});
    if (header.data.end_token) writer.attribute("/data", "end_token", std::int64_t{*header.data.end_token});
}

namespace {

/// Files of before say nothing.
std::optional<std::int32_t> stored_token(const CheckpointReader& reader, const char* key) {
    if (!reader.has_attribute("/data", key)) return std::nullopt;
    const auto id = std::get<std::int64_t>(reader.attribute("/data", key));
    require(id >= -1 && id <= std::numeric_limits<std::int32_t>::max(),
            "checkpoint `{}`: {} = {} is not the id of a token; it is damaged", reader.path(), key, id);
    return static_cast<std::int32_t>(id);
}

CheckpointHeader header_of(const CheckpointReader& reader) {
    const auto integer = [&](const char* object, const char* key) {
        return std::get<std::int64_t>(reader.attribute(object, key));
    };
    const auto text = [&](const char* object, const char* key) {
        return std::get<std::string>(reader.attribute(object, key));
    };
    const std::int64_t version = integer("/", "format_version");
    require(version == format_version,
            "checkpoint `{}` has format version {} (this program reads version {}); use the program that "
            "wrote it",
            reader.path(), version, format_version);
    CheckpointHeader header;
    header.step = integer("/", "step");
    header.tokens_seen = integer("/", "tokens_seen");
    header.config = text("/", "config");
    header.dtype = text("/", "dtype");
    header.next_sample = integer("/data", "next_sample");
    header.data = {text("/data", "token_fingerprint"), text("/data", "tokenizer_fingerprint"),
                   stored_token(reader, "begin_token"), stored_token(reader, "end_token")};
    return header;
}

}  // namespace

CheckpointHeader read_header(const Comm& world, const std::string& path) {
    const CheckpointReader reader(world, path);
    return agreed(world, [&] { return header_of(reader); });
}

Config stored_config(const CheckpointHeader& header, const std::string& path,
                     const std::vector<std::string>& arguments) {
    Config config =
        parse_stored_config(header.config, "the configuration in " + path, arguments, method_options());
    resolve_auto(config);  // files of before: dense_lr = 0
    return config;
}

}  // namespace switchyard

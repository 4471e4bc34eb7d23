// Messages name key, stored and requested value.
#include "run/resume_rules.hpp"

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {
namespace {

/// Resolved sizes are compared one by one, so the name under which they were asked for does not matter.
bool is_only_a_name(const std::string& key) {
    return key == "model.preset";
}

/// Text of the newest configuration that a checkpoint in `directory` tells, "" where none does. Why not (a
/// damaged file, one of another program, a directory that cannot be read) says whoever opens the run.
std::string newest_configuration(const std::string& directory) {
    try {
        for (const auto& [step, path] : list_checkpoints(directory)) {
            try {
                return read_header(Comm(), path).config;
            } catch (const UserError&) {
                continue;
            }
        }
    } catch (const UserError&) {
        return "";
    }
    return "";
}

}  // namespace

void keep_stored_values(const Comm& world, ParsedConfig& requested) {
    const std::string& directory = requested.config.run.dir;
    std::string text;
    if (world.rank() == 0) text = newest_configuration(RunDirectory::checkpoints_of(directory));
    text = broadcast(world, text);
    if (text.empty()) return;
    CheckpointHeader header;
    header.config = text;
    try {
        take_stored_values(requested.config, requested.given_keys, stored_config(header, directory),
                           method_options());
    } catch (const UserError&) {
        // Of a method that is not known here: restoring it says so.
    }
}

std::vector<std::string> check_resumable(const CheckpointHeader& header, const std::string& path,
                                         const Config& requested) {
    std::vector<std::string> allowed, refused;
    for (const ConfigChange& change :
         compare_configs(stored_config(header, path), requested, method_options())) {
        if (is_only_a_name(change.key)) continue;
        (change.allowed ? allowed : refused)
            .push_back(fmt::format("{}: {} -> {}", change.key, change.stored, change.requested));
    }
    require(refused.empty(),
            "the configuration differs from that of checkpoint `{}` (stored -> requested): {} (the run would "
            "not be "
            "the one that was interrupted); use the stored values, or another run.dir with run.init_from for "
            "a new run",
            path, fmt::join(refused, "; "));
    return allowed;
}

void check_data(const CheckpointHeader& header, const std::string& path, const TokenFile& tokens) {
    const DataIdentity now = identity_of(tokens.info());
    require(
        header.data.tokenizer == now.tokenizer,
        "token file `{}` was made with a different tokenizer from that of checkpoint `{}` (fingerprints {} "
        "and {}; its "
        "ids mean other words); give the token file of the run as data.tokens",
        tokens.path(), path, now.tokenizer, header.data.tokenizer);
    require(
        header.data.tokens == now.tokens,
        "token file `{}` holds different tokens from that of checkpoint `{}` (fingerprints {} and {}; the "
        "run would not "
        "be the one that was interrupted); give the token file of the run as data.tokens",
        tokens.path(), path, now.tokens, header.data.tokens);
}

void check_same_model(const Config& stored, const std::string& path, const Config& requested) {
    require_supported(stored, Use::start_run, path);
    for (const ConfigChange& change : compare_configs(stored, requested, method_options())) {
        const bool of_model = change.key.rfind("model.", 0) == 0 && !change.allowed &&
                              !is_only_a_name(change.key) && change.key != "model.init_std";
        require(!of_model,
                "checkpoint `{}` is of another model: {} is {} there and {} here (its weights do not fit); "
                "set {} to {}",
                path, change.key, change.stored, change.requested, change.key, change.stored);
    }
}

}  // namespace switchyard

// Messages name key, stored and requested value.
#include "run/inputs.hpp"

#include <filesystem>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {
namespace {

/// Resolved sizes are compared one by one, so the name under which they were asked for does not matter.
bool is_only_a_name(const std::string& key) {
    return key == "model.preset";
}

}  // namespace

Config read_configuration(const Comm& world, const std::vector<std::string>& files,
                          const std::vector<std::string>& settings) {
    std::string text, name = files.empty() ? "" : files[0];
    std::vector<std::string> arguments;
    std::int64_t is_directory = 0;
    agree_on(world, [&] {
        require(files.size() <= 1,
                "{} configuration files: {} (a run has one; settings come as --section.key=value) give one",
                files.size(), fmt::join(files, ", "));
        if (world.rank() != 0 || name.empty()) return;
        is_directory = std::filesystem::is_directory(name);
        const std::string file = is_directory ? name + "/config.cfg" : name;
        require(std::filesystem::exists(file),
                "there is no `{}` (it is read as the configuration; a run directory has one as soon as a run "
                "has started there) check the path, or give all settings as --section.key=value",
                file);
        text = read_file(file);
    });
    is_directory = broadcast(world, is_directory);
    text = broadcast(world, text);
    if (is_directory) {
        arguments.push_back("--run.dir=" + name);
        name += "/config.cfg";
    }
    arguments.insert(arguments.end(), settings.begin(), settings.end());
    return agreed(world, [&] { return parse_config(text, name, arguments, method_options()).config; });
}

std::string find_checkpoint(const Comm& world, const std::string& name) {
    std::string path = name;
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        require(!is_token_file(name),
                "`{}` is a token file (a checkpoint is wanted) give that as data.tokens", name);
        if (!std::filesystem::is_directory(name)) return;
        const auto files = list_checkpoints(RunDirectory::checkpoints_of(name));
        require(!files.empty(), "run directory `{}` has no checkpoint (there is nothing to load) train first",
                name);
        path = files.front().second;
    });
    return broadcast(world, path);
}

std::unique_ptr<TokenFile> open_tokens(const Comm& world, Config& config) {
    return agreed(world, [&] {
        require(!config.data.tokens.empty(),
                "data.tokens is not set (training needs a token file) make one with `switchyard tokenize` "
                "and give "
                "--data.tokens=FILE");
        auto tokens = std::make_unique<TokenFile>(config.data.tokens);
        const std::int64_t vocab_size = tokens->info().vocab_size;
        if (config.model.vocab_size == 0) config.model.vocab_size = vocab_size;
        require(
            config.model.vocab_size >= vocab_size,
            "model.vocab_size = {} is smaller than the {} tokens of `{}` (ids beyond it have no embedding) "
            "use {} or "
            "more, or 0 for the token file's",
            config.model.vocab_size, vocab_size, config.data.tokens, vocab_size);
        return tokens;
    });
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
            "the one that was interrupted) use the stored values, or another run.dir with run.init_from for "
            "a new run",
            path, fmt::join(refused, "; "));
    return allowed;
}

void check_data(const CheckpointHeader& header, const std::string& path, const TokenFile& tokens) {
    const DataIdentity now = identity_of(tokens.info());
    require(header.data.tokenizer == now.tokenizer,
            "token file `{}` was made with another tokenizer than that of checkpoint `{}` (fingerprints {} "
            "and {}; its "
            "ids mean other words) give the token file of the run as data.tokens",
            tokens.path(), path, now.tokenizer, header.data.tokenizer);
    require(header.data.tokens == now.tokens,
            "token file `{}` holds other tokens than that of checkpoint `{}` (fingerprints {} and {}; the "
            "run would not "
            "be the one that was interrupted) give the token file of the run as data.tokens",
            tokens.path(), path, now.tokens, header.data.tokens);
}

void check_same_model(const Config& stored, const std::string& path, const Config& requested) {
    for (const ConfigChange& change : compare_configs(stored, requested, method_options())) {
        const bool of_model = change.key.rfind("model.", 0) == 0 && !change.allowed &&
                              !is_only_a_name(change.key) && change.key != "model.init_std";
        require(!of_model,
                "checkpoint `{}` is of another model: {} is {} there and {} here (its weights do not fit) "
                "set {} to {}",
                path, change.key, change.stored, change.requested, change.key, change.stored);
    }
}

}  // namespace switchyard

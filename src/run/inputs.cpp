// Rank 0 reads files and broadcasts their text.
#include "run/inputs.hpp"

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {
namespace {

struct ConfigurationText {
    std::string text, name;   // name: for messages
    std::int64_t is_run = 0;  // a run directory was named
};
/// Read by rank 0 for all. Collective.
ConfigurationText read_text(const Comm& world, const std::string& name) {
    ConfigurationText found{"", name};
    agree_on(world, [&] {
        if (world.rank() != 0 || name.empty()) return;
        found.is_run = is_folder_at(name);
        const std::string file = found.is_run ? name + "/config.cfg" : name;
        require(exists_at(file),
                "there is no `{}` (it is read as the configuration; a run directory has one as soon as a run "
                "has started there); check the path, or give all settings as --section.key=value",
                file);
        found.text = read_file(file, 4 << 20);  // no configuration is longer
    });
    found.is_run = broadcast(world, found.is_run);
    found.text = broadcast(world, found.text);
    if (found.is_run) found.name += "/config.cfg";
    return found;
}

}  // namespace

ParsedConfig read_configuration(const Comm& world, const std::vector<std::string>& files,
                                const std::vector<std::string>& settings) {
    agree_on(world, [&] {
        require(files.size() <= 1,
                "{} configuration files: {} (a run has one; settings come as --section.key=value); give one",
                files.size(), fmt::join(files, ", "));
    });
    const ConfigurationText file = read_text(world, files.empty() ? "" : files[0]);
    std::vector<std::string> arguments;
    if (file.is_run) arguments.push_back("--run.dir=" + files[0]);
    arguments.insert(arguments.end(), settings.begin(), settings.end());
    return agreed(world, [&] {
        ParsedConfig parsed = parse_config(file.text, file.name, arguments, method_options());
        if (!file.is_run) check_paths(parsed.config);
        return parsed;
    });
}

std::vector<Setting> settings_as_written(const Comm& world, const std::string& name) {
    const ConfigurationText file = read_text(world, name);
    return agreed(world, [&] { return settings_of_file(file.text, file.name, {}); });
}

std::string find_checkpoint(const Comm& world, const std::string& name) {
    std::string path = name;
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        require(!is_token_file(name),
                "`{}` is a token file (a checkpoint is expected); give that as data.tokens", name);
        if (!is_folder_at(name)) return;
        const auto files = list_checkpoints(RunDirectory::checkpoints_of(name));
        require(!files.empty(),
                "run directory `{}` has no checkpoint (there is nothing to load); train first", name);
        path = files.front().second;
    });
    return broadcast(world, path);
}

std::unique_ptr<TokenFile> open_tokens(const Comm& world, Config& config) {
    const std::string& path = config.data.tokens;
    agree(
        world, !path.empty(),
        "data.tokens is not set (training needs a token file); make one with `switchyard tokenize` and give "
        "--data.tokens=FILE");
    auto tokens = std::make_unique<TokenFile>(open_token_file(path, world));
    agree_on(world, [&] {
        const std::int64_t vocab_size = tokens->info().vocab_size;
        if (config.model.vocab_size == 0) config.model.vocab_size = vocab_size;
        require(config.model.vocab_size >= vocab_size,
                "model.vocab_size = {} is smaller than the {} tokens of `{}` (ids beyond it have no "
                "embedding); use {} or more, or 0 for the token file's",
                config.model.vocab_size, vocab_size, path, vocab_size);
    });
    return tokens;
}

void resolve_vocabulary(const Comm& world, Config& config) {
    constexpr std::int64_t vocab_size_of_t5 = 32100;
    if (config.model.vocab_size == 0 && config.data.tokens.empty())
        config.model.vocab_size = vocab_size_of_t5;
    if (config.model.vocab_size == 0) open_tokens(world, config);
}

}  // namespace switchyard

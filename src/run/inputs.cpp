// Rank 0 reads files; the others get their text.
#include "run/inputs.hpp"

#include <filesystem>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/files/files.hpp"
#include "io/run/run_directory.hpp"

namespace switchyard {

Config read_configuration(const Comm& world, const std::vector<std::string>& files,
                          const std::vector<std::string>& settings) {
    std::string text, name = files.empty() ? "" : files[0];
    std::vector<std::string> arguments;
    std::int64_t is_directory = 0;
    agree_on(world, [&] {
        require(files.size() <= 1,
                "{} configuration files: {} (a run has one; settings come as --section.key=value); give one",
                files.size(), fmt::join(files, ", "));
        if (world.rank() != 0 || name.empty()) return;
        is_directory = std::filesystem::is_directory(name);
        const std::string file = is_directory ? name + "/config.cfg" : name;
        require(std::filesystem::exists(file),
                "there is no `{}` (it is read as the configuration; a run directory has one as soon as a run "
                "has started there); check the path, or give all settings as --section.key=value",
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
                "`{}` is a token file (a checkpoint is expected); give that as data.tokens", name);
        if (!std::filesystem::is_directory(name)) return;
        const auto files = list_checkpoints(RunDirectory::checkpoints_of(name));
        require(!files.empty(), "run directory `{}` has no checkpoint (there is nothing to load); train first",
                name);
        path = files.front().second;
    });
    return broadcast(world, path);
}

std::unique_ptr<TokenFile> open_tokens(const Comm& world, Config& config) {
    return agreed(world, [&] {
        require(!config.data.tokens.empty(),
                "data.tokens is not set (training needs a token file); make one with `switchyard tokenize` "
                "and give "
                "--data.tokens=FILE");
        auto tokens = std::make_unique<TokenFile>(config.data.tokens);
        const std::int64_t vocab_size = tokens->info().vocab_size;
        if (config.model.vocab_size == 0) config.model.vocab_size = vocab_size;
        require(
            config.model.vocab_size >= vocab_size,
            "model.vocab_size = {} is smaller than the {} tokens of `{}` (ids beyond it have no embedding); "
            "use {} or "
            "more, or 0 for the token file's",
            config.model.vocab_size, vocab_size, config.data.tokens, vocab_size);
        return tokens;
    });
}

}  // namespace switchyard

// Dispatch and help.
#include "commands/commands.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comm/collectives.hpp"
#include "config/option_table.hpp"
#include "config/value_rule.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/version.hpp"
#include "methods/registry.hpp"

namespace switchyard {
namespace {

std::string general_help(const std::vector<Command>& commands) {
    std::string text = "switchyard COMMAND [FILES] [--option] [--section.key=value ...]\n\n";
    for (const Command& c : commands)
        text += fmt::format("  {:<9} {:<32} {}\n", c.name, c.arguments, c.summary);
    text +=
        "\n  COMMAND --help  its options; for `train` all configuration keys\n"
        "  --version       version and revision\n"
        "  --dump-config   the configuration with every key, its unit and meaning (also `train CONFIG "
        "--dump-config`)\n"
        "  --list-methods  the training methods (also `train --list-methods`)\n\n"
        "On ranks: mpirun -n 4 switchyard train run.cfg; `selftest`, `eval`, `generate` and `export` too. "
        "The "
        "others work on one process, without MPI.\n";
    return text;
}

bool is_setting(const CommandOption& option) {
    return option.name.find('.') != std::string::npos;
}

bool takes_any_setting(const Command& command) {
    return command.takes_settings && std::none_of(command.options.begin(), command.options.end(), is_setting);
}

std::string help_of(const Command& command) {
    std::string text =
        fmt::format("switchyard {} {}\n  {}\n", command.name, command.arguments, command.summary);
    if (!command.options.empty())
        text += "\nOptions (CAPITALS stand for a value; other values shown are defaults):\n";
    const auto written = [](const CommandOption& o) {
        return o.value.empty() ? o.name : o.name + "=" + o.value;
    };
    std::size_t width = 0;
    for (const CommandOption& o : command.options) width = std::max(width, written(o).size());
    for (const CommandOption& o : command.options)
        text += fmt::format("  --{:<{}}  {}\n", written(o), width, o.help);
    if (!takes_any_setting(command)) return text;
    text += "\nConfiguration keys with their defaults, in a file as below or as --section.key=value:\n\n";
    const std::vector<MethodOptions> methods = method_options();
    return text + annotated_config_text(parse_config("", "", {}, methods).config, methods);
}

void check_settings(const Command& command, const Arguments& arguments) {
    if (takes_any_setting(command) || arguments.settings.empty()) return;
    std::vector<std::string> names;
    for (const CommandOption& option : command.options)
        if (is_setting(option)) names.push_back(option.name);
    require(!names.empty(), "{} is not an option of `switchyard {}` (it uses no configuration); leave it out",
            arguments.settings[0], command.name);
    for (const std::string& setting : arguments.settings)
        require(
            std::find(names.begin(), names.end(), setting.substr(2, setting.find('=') - 2)) != names.end(),
            "{} has no effect in `switchyard {}` (a checkpoint brings its configuration); only {} can be "
            "given",
            setting, command.name, fmt::join(names, ", "));
}

const Command& find(const std::vector<Command>& commands, const std::string& name) {
    std::vector<std::string> names;
    for (const Command& command : commands) {
        if (command.name == name) return command;
        names.emplace_back(command.name);
    }
    fail("unknown command '{}' (there are: {}); did you mean '{}'? See `switchyard --help`", name,
         fmt::join(names, ", "), nearest(name, names));
}

}  // namespace

int on_rank_zero(const Comm& world, int (*work)(const Arguments&), const Arguments& arguments) {
    std::int64_t code = 0;
    agree_on(world, [&] {
        if (world.rank() == 0) code = work(arguments);
    });
    return static_cast<int>(broadcast(world, code));
}

const std::string& only_file(const Arguments& arguments, const char* what) {
    require(arguments.files.size() == 1, "{} files given (the command takes one: {}); name one {}",
            arguments.files.size(), what, what);
    return arguments.files[0];
}

double hang_timeout(const Arguments& arguments) {
    std::vector<std::string> given;
    for (const std::string& setting : arguments.settings)
        if (setting.starts_with("--run.hang_timeout=")) given.push_back(setting);
    return parse_config("", "", given, method_options()).config.run.hang_timeout;
}

CommandOption hang_timeout_option() {
    return {"run.hang_timeout", "600", "end all ranks without progress for that many seconds; 0: never"};
}

bool uses_ranks(const std::vector<Command>& commands, int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const auto asks_for_text = [](const std::string& word) {
        return word == "--help" || word == "-h" || word == "--dump-config" || word == "--list-methods";
    };
    if (words.empty() || std::any_of(words.begin(), words.end(), asks_for_text)) return false;
    return std::any_of(commands.begin(), commands.end(),
                       [&](const Command& c) { return c.name == words[0] && c.ranks == Ranks::together; });
}

int run_command_line(const std::vector<Command>& commands, const Comm& world, int argc, char** argv,
                     double start_s) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const auto say = [&](const std::string& text) {
        if (world.rank() == 0) write_result(text);
        flush_results();
        return 0;
    };
    if (words.size() == 2 && words[0] == "help") words = {words[1], "--help"};
    if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help")
        return say(general_help(commands));
    if (words[0] == "--version") return say(version_text() + "\n");
    if (words[0] == "--dump-config" || words[0] == "--list-methods") words.insert(words.begin(), "train");
    const Command& command = *agreed(world, [&] { return &find(commands, words[0]); });
    words.erase(words.begin());
    for (const std::string& word : words)
        if (word == "--help" || word == "-h") return say(help_of(command));
    CommandContext context{world, {argv[0], start_s}};
    for (int i = 1; i < argc; ++i) context.start.command += std::string(" ") + argv[i];
    try {
        const Arguments arguments = agreed(world, [&] {
            Arguments parsed = parse_arguments(command.name, words, command.options);
            check_settings(command, parsed);
            return parsed;
        });
        const int code = command.run(context, arguments);
        flush_results();
        return code;
    } catch (const UserError& error) {
        if (command.error_code == 1) throw;
        if (world.rank() == 0) print_error("{}", error.what());
        return command.error_code;
    }
}

}  // namespace switchyard

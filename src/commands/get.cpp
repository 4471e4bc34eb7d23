// get: prints one value of a configuration, so that scripts need not parse the file. The output is the value
// alone: no quotes, unit or comment.
#include <nlohmann/json.hpp>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "run/inputs.hpp"

namespace switchyard {
namespace {

/// Prints the settings of a file without checking them: a study has lists of values and sections of its own.
int print_as_written(const CommandContext& context, const Arguments& arguments) {
    const std::vector<Setting> settings =
        settings_as_written(context.world, only_file(arguments, "configuration"));
    nlohmann::ordered_json values = nlohmann::ordered_json::object();
    for (const Setting& setting : settings) values[setting.key] = setting.value;
    const auto replace = nlohmann::ordered_json::error_handler_t::replace;
    if (context.world.rank() == 0) write_result(values.dump(2, ' ', true, replace) + "\n");
    return 0;
}

}  // namespace

std::vector<CommandOption> get_options() {
    return {{"as_written", "", "all that the file sets, unchecked, as JSON: get --as_written CONFIG"}};
}

int run_get(const CommandContext& context, const Arguments& arguments) {
    if (arguments.has("as_written")) return print_as_written(context, arguments);
    std::vector<std::string> files = arguments.files;
    agree_on(context.world, [&] {
        require(!files.empty(),
                "no key is given (the command prints the value of one); write `switchyard get "
                "run.dir my.cfg`");
    });
    const std::string key = files.front();
    files.erase(files.begin());
    const Config config = read_configuration(context.world, files, arguments.settings).config;
    const std::string value = agreed(context.world, [&] { return value_of(config, key, method_options()); });
    if (context.world.rank() == 0) write_text_result(value + "\n");
    return 0;
}

}  // namespace switchyard

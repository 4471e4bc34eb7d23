// train: starts or resumes a run directory.
#include <fmt/format.h>

#include "commands/commands.hpp"
#include "commands/list_methods.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "run/inputs.hpp"
#include "run/trainer.hpp"

namespace switchyard {

std::vector<CommandOption> train_options() {
    return {
        {"dump-config", "", "print the configuration that would be used, with units and meanings, and end"},
        {"list-methods", "", "print the methods: equations, keys, rates, cost, when to use them, and end"}};
}

int run_train(const CommandContext& context, const Arguments& arguments) {
    if (arguments.has("list-methods")) {
        if (context.world.rank() == 0) write_text_result(methods_text());
        return 0;
    }
    const ParsedConfig given = read_configuration(context.world, arguments.files, arguments.settings);
    if (arguments.has("dump-config")) {
        if (context.world.rank() == 0)
            write_text_result(annotated_config_text(given.config, method_options()));
        return 0;
    }
    return train(context.world, given, context.start);
}

}  // namespace switchyard

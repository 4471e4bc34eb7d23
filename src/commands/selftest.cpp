// selftest: is this machine fit for a run of this configuration? Exit code 1 if a line fails.
#include "selftest/selftest.hpp"

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "io/files/files.hpp"
#include "run/inputs.hpp"
#include "run/watchdog.hpp"

namespace switchyard {

std::vector<CommandOption> selftest_options() {
    return {{"json", "", "for programs: everything, instead of the table (docs/selftest.md)"},
            {"output", "FILE", "write the same JSON into a file, beside the table"}};
}

int run_selftest(const CommandContext& context, const Arguments& arguments) {
    const Comm& world = context.world;
    Config config = read_configuration(world, arguments.files, arguments.settings).config;
    resolve_vocabulary(world, config);
    agree_on(world, [&] {
        Topology::check_grid(world.size(), config.parallel.tp);
        // The batch of a step does not matter here, so any number of ranks fits.
        const std::int64_t at_once = world.size() / config.parallel.tp * config.data.micro_batch;
        if (config.data.global_batch % at_once != 0) config.data.global_batch = at_once;
        resolve_auto(config);
        validate_run(config, world.size());
    });
    const Watchdog watchdog(config.run.hang_timeout, world.rank());
    const Topology topology = Topology::create(world, config.parallel.tp);
    const selftest::Result result = selftest::run(config, topology, context.start);
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        const std::string json = selftest::json_of(config, result).dump(2) + "\n";
        write_text_result(arguments.has("json") ? json : selftest::table_of(result));
        if (const std::string file = arguments.text("output", ""); !file.empty()) write_file(file, json);
    });
    return result.verdict() == selftest::Verdict::failed ? 1 : 0;
}

}  // namespace switchyard

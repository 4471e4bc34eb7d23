// export and import: weights to and from Hugging Face directories.
#include <fmt/format.h>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "convert/export.hpp"
#include "convert/import.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "run/inputs.hpp"
#include "run/watchdog.hpp"

namespace switchyard {
namespace {

DType stored_type(const Arguments& arguments) {
    const std::string name = arguments.text("dtype", "f32");
    require(name == "f32" || name == "bf16",
            "--dtype={} is not known here (files hold f32 or bf16); give one of them", name);
    return dtype_from_name(name);
}

/// Everything but the path of the checkpoint, which must be looked up.
ExportRequest export_request(const Arguments& arguments) {
    require(arguments.files.size() == 2,
            "{} files given (export takes two: a checkpoint or run directory, and the directory to write); "
            "name both",
            arguments.files.size());
    require(!arguments.files[1].empty(),
            "the name of the directory to write is empty (an exported model needs one); give one");
    ExportRequest request;
    request.directory = arguments.files[1];
    while (request.directory.size() > 1 && request.directory.ends_with('/')) request.directory.pop_back();
    request.settings = arguments.settings;
    request.dtype = stored_type(arguments);
    request.max_shard_bytes = bytes_from_text(arguments.text("max_shard_size", "5GB"), "--max_shard_size");
    request.adapters = arguments.has("adapters");
    request.tokenizer = !arguments.has("no_tokenizer");
    return request;
}

int import_directory(const Arguments& arguments) {
    const Watchdog watchdog(hang_timeout(arguments), 0);
    ImportRequest request;
    request.directory = only_file(arguments, "directory");
    request.output = arguments.text("output", "");
    request.settings = arguments.settings;
    require(!request.output.empty(),
            "--output is missing (the checkpoint needs a name); give --output=FILE.h5");
    if (arguments.has("dtype")) request.dtype = name_of(stored_type(arguments));
    print_result("{}\n", import_weights(request));
    return 0;
}

}  // namespace

std::vector<CommandOption> export_options() {
    return {{"adapters", "", "low-rank factors as a PEFT adapter: DIR/base and DIR/adapter; default: merged"},
            {"dtype", "f32", "number format of the files: f32 or bf16"},
            {"max_shard_size", "5GB", "begin another file of values beyond this"},
            {"no_tokenizer", "", "leave the tokenizer out"},
            {"data.tokens", "FILE", "token file that holds the tokenizer; default: the run's"},
            hang_timeout_option()};
}

int run_export(const CommandContext& context, const Arguments& arguments) {
    ExportRequest request = agreed(context.world, [&] { return export_request(arguments); });
    const Watchdog watchdog(agreed(context.world, [&] { return hang_timeout(arguments); }),
                            context.world.rank());
    request.checkpoint = find_checkpoint(context.world, arguments.files[0]);
    export_weights(context.world, request);
    return 0;
}

std::vector<CommandOption> import_options() {
    return {{"output", "FILE.h5", "the checkpoint to write"},
            {"dtype", "f32", "compute type, f32 or bf16; default: bf16 if all values of DIR are, else f32"},
            {"data.tokens", "FILE", "token file for eval; it must have the model's tokenizer"},
            {"data.seq_len", "N", "length of a sequence in eval; default: the model's, at most 2048"},
            {"data.mask_documents", "false", "attention does not cross documents"},
            hang_timeout_option()};
}

int run_import(const CommandContext& context, const Arguments& arguments) {
    return on_rank_zero(context.world, import_directory, arguments);
}

}  // namespace switchyard

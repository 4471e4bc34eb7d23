// switchyard: the table of commands and the functions that run them. An error that arrives here ends every
// rank.
#include <exception>

#include "comm/failure.hpp"
#include "commands/commands.hpp"
#include "core/output.hpp"
#include "core/timer.hpp"
#include "io/files/files.hpp"
#include "io/files/structure_reader.hpp"
#include "run/stop_requests.hpp"

namespace {

using namespace switchyard;

std::vector<Command> commands() {
    using enum Ranks;
    return {
        {.name = "tokenize",
         .arguments = "TEXT... --output=FILE.h5",
         .summary = "files of text or JSON lines to a token file",
         .run = run_tokenize,
         .options = tokenize_options()},
        {.name = "train",
         .arguments = "[CONFIG | RUN]",
         .summary = "starts or resumes a run directory",
         .run = run_train,
         .options = train_options(),
         .ranks = together,
         .takes_settings = true},
        {.name = "eval",
         .arguments = "CHECKPOINT | RUN",
         .summary = "validation loss and perplexity",
         .run = run_eval,
         .options = eval_options(),
         .ranks = together,
         .takes_settings = true},
        {.name = "generate",
         .arguments = "CHECKPOINT | RUN --prompt=TEXT",
         .summary = "a continuation",
         .run = run_generate,
         .options = generate_options(),
         .ranks = together,
         .takes_settings = true},
        {.name = "plan",
         .arguments = "[CONFIG]",
         .summary = "memory, bytes and time before a launch",
         .run = run_plan,
         .options = plan_options(),
         .takes_settings = true},
        {.name = "selftest",
         .arguments = "[CONFIG | RUN]",
         .summary = "checks and measures this machine before a run",
         .run = run_selftest,
         .options = selftest_options(),
         .ranks = together,
         .takes_settings = true},
        {.name = "get",
         .arguments = "KEY [CONFIG | RUN]",
         .summary = "one value of a configuration, for scripts",
         .run = run_get,
         .options = get_options(),
         .takes_settings = true},
        {.name = "inspect",
         .arguments = "FILE",
         .summary = "what a checkpoint or token file holds",
         .run = run_inspect},
        {.name = "verify",
         .arguments = "FILE...",
         .summary = "reads files and compares checksums",
         .run = run_verify},
        {.name = "diff",
         .arguments = "A B",
         .summary = "compares two checkpoints or two token files",
         .run = run_diff,
         .options = diff_options(),
         .error_code = 2},
        {.name = "export",
         .arguments = "CHECKPOINT | RUN DIR",
         .summary = "weights to a Hugging Face directory",
         .run = run_export,
         .options = export_options(),
         .ranks = together,
         .takes_settings = true},
        {.name = "import",
         .arguments = "DIR --output=FILE.h5",
         .summary = "a Hugging Face directory to a checkpoint",
         .run = run_import,
         .options = import_options(),
         .takes_settings = true},
    };
}

}  // namespace

int main(int argc, char** argv) {
    const double start_s = seconds_now();
    prepare_standard_streams();
    if (int code = 0; serve_structure(argc, argv, code)) return code;
    note_requeue_signals();
    int rank = 0;
    ignore_file_size_signal();
    try {
        const std::vector<Command> all = commands();
        const MpiSession session(argc, argv, uses_ranks(all, argc, argv));
        const Comm world = session.world();
        rank = world.rank();
        return run_command_line(all, world, argc, argv, start_s);
    } catch (const std::exception& error) {
        wait_for_lower_ranks(rank, error);
        abort_all_ranks(rank, message_of(error));
    }
}

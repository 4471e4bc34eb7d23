// switchyard: what each command is called and who does it. An error that arrives here ends every rank.
#include <exception>

#include "comm/failure.hpp"
#include "commands/commands.hpp"
#include "core/timer.hpp"
#include "io/files/files.hpp"
#include "run/stop_requests.hpp"

namespace {

using namespace switchyard;

std::vector<Command> commands() {
    return {
        {"tokenize", "TEXT... --output=FILE.h5", "text or JSONL files to a token file", run_tokenize,
         tokenize_options()},
        {"train", "[CONFIG | RUN]", "starts or resumes a run directory", run_train, train_options(), true},
        {"eval", "CHECKPOINT | RUN", "validation loss and perplexity", run_eval, eval_options(), true},
        {"generate", "CHECKPOINT | RUN --prompt=TEXT", "a continuation", run_generate, generate_options(),
         true},
        {"plan", "[CONFIG]", "memory, bytes and time before a launch", run_plan, plan_options(), true},
        {"inspect", "FILE", "what a checkpoint or token file holds", run_inspect, {}},
        {"verify", "FILE...", "reads files and compares checksums", run_verify, {}},
        {"diff", "A B", "compares two checkpoints or two token files", run_diff, diff_options(), false, 2},
        {"export", "CHECKPOINT | RUN DIR", "weights to a Hugging Face directory", run_export,
         export_options(), true},
        {"import", "DIR --output=FILE.h5", "a Hugging Face directory to a checkpoint", run_import,
         import_options(), true},
    };
}

}  // namespace

int main(int argc, char** argv) {
    const double start_s = seconds_now();
    note_requeue_signals();
    int rank = 0;
    ignore_file_size_signal();
    try {
        MpiSession session(argc, argv);
        const Comm world = Comm::duplicate(MPI_COMM_WORLD);
        rank = world.rank();
        return run_command_line(commands(), world, argc, argv, start_s);
    } catch (const std::exception& error) {
        yield_to_lower_ranks(rank, error);
        abort_all_ranks(rank, message_of(error));
    }
}

// The commands of the program. Each gets its parsed arguments and returns its exit code; errors are thrown.
#pragma once

#include <string>
#include <vector>

#include "commands/arguments.hpp"
#include "run/environment.hpp"

namespace switchyard {

struct CommandContext {
    const Comm& world;
    StartInfo start;
};

/// first: rank 0 alone does the work, so that one process needs no MPI. together: all ranks do.
enum class Ranks { first, together };

struct Command {
    const char* name;
    const char* arguments;  // for the usage line
    const char* summary;
    int (*run)(const CommandContext&, const Arguments&);
    std::vector<CommandOption> options = {};
    Ranks ranks = Ranks::first;
    /// Accepts --section.key=value: those listed among its options or, if none is listed, all.
    bool takes_settings = false;
    /// Exit code of an error; if it is not 1, all ranks must meet the error together.
    int error_code = 1;
};

std::vector<CommandOption> tokenize_options();
int run_tokenize(const CommandContext&, const Arguments&);

std::vector<CommandOption> train_options();
int run_train(const CommandContext&, const Arguments&);

std::vector<CommandOption> eval_options();
int run_eval(const CommandContext&, const Arguments&);
std::vector<CommandOption> generate_options();
int run_generate(const CommandContext&, const Arguments&);

std::vector<CommandOption> plan_options();
int run_plan(const CommandContext&, const Arguments&);

std::vector<CommandOption> selftest_options();
int run_selftest(const CommandContext&, const Arguments&);

std::vector<CommandOption> get_options();
int run_get(const CommandContext&, const Arguments&);

int run_inspect(const CommandContext&, const Arguments&);
int run_verify(const CommandContext&, const Arguments&);
std::vector<CommandOption> diff_options();
int run_diff(const CommandContext&, const Arguments&);

std::vector<CommandOption> export_options();
int run_export(const CommandContext&, const Arguments&);
std::vector<CommandOption> import_options();
int run_import(const CommandContext&, const Arguments&);

/// Rank 0 does the work; all ranks return its exit code.
int on_rank_zero(const Comm& world, int (*work)(const Arguments&), const Arguments&);
/// The only file of a command that takes one. Throws UserError if there are none or several.
const std::string& only_file(const Arguments&, const char* what);

/// --run.hang_timeout, or its default, of a command that has no run; in seconds.
double hang_timeout(const Arguments&);
CommandOption hang_timeout_option();

/// True if the ranks work together on this command line. Help, --dump-config and --list-methods need no MPI.
bool uses_ranks(const std::vector<Command>&, int argc, char** argv);
/// Finds and runs the command, or answers --help and --version. Returns the exit code.
int run_command_line(const std::vector<Command>&, const Comm& world, int argc, char** argv, double start_s);

}  // namespace switchyard

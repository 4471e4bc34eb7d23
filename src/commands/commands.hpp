// The commands of the program. Each gets its sorted arguments and returns its exit code; errors are thrown.
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

/// Who works: rank 0, so that one process needs no MPI, or all ranks together.
enum class Ranks { first, together };

struct Command {
    const char* name;
    const char* arguments;  // for the usage line
    const char* summary;
    int (*run)(const CommandContext&, const Arguments&);
    std::vector<CommandOption> options = {};
    Ranks ranks = Ranks::first;
    bool takes_settings = false;  // --section.key=value; those among the options, if there are any, else all
    int error_code = 1;           // exit code of an error; other than 1: of one that all ranks meet
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

/// Rank 0 works, all return its code.
int on_rank_zero(const Comm& world, int (*work)(const Arguments&), const Arguments&);
/// The one file that a command takes. Throws UserError otherwise.
const std::string& only_file(const Arguments&, const char* what);

/// --run.hang_timeout of a command that has no run, or its default, in seconds.
double hang_timeout(const Arguments&);
CommandOption hang_timeout_option();

/// Whether the ranks work together on what these words ask for: help and --dump-config need no MPI.
bool uses_ranks(const std::vector<Command>&, int argc, char** argv);
/// Finds the command, answers --help and --version, runs it. Exit code.
int run_command_line(const std::vector<Command>&, const Comm& world, int argc, char** argv, double start_s);

}  // namespace switchyard

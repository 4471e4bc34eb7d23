// fuzz TARGET [--runs=N | --part=N | --seconds=S] [--seed=N] [FILE...]: runs the seeded mutator, or tries the
// given files one by one. --part=N: an N-th of the target's short run. A harmful input is kept as
// fuzz-TARGET.input in the working directory, and the exit code is 1.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "core/error.hpp"
#include "core/timer.hpp"
#include "fuzz/mutate.hpp"
#include "fuzz/targets.hpp"
#include "io/files/files.hpp"
#include "io/files/structure_reader.hpp"

namespace switchyard::fuzz {
namespace {

constexpr unsigned hang_s = 30;

// For the signal handler: the input that is being tried, and the name under which it is kept.
std::string current_input, kept_name;

void keep_input() {
    const int fd = ::open(kept_name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    (void)!::write(fd, current_input.data(), current_input.size());
    ::close(fd);
}

extern "C" void keep_and_end(int signal) {
    keep_input();
    const char* text = signal == SIGALRM ? "the input hangs\n" : "the input ends the process by a signal\n";
    (void)!::write(STDERR_FILENO, text, std::strlen(text));
    ::_exit(1);
}

void try_input(const Target& target, std::string input) {
    current_input = std::move(input);
    ::alarm(hang_s);
    try {
        target.run(current_input);
    } catch (const UserError&) {  // the right answer to a bad input
    } catch (const std::exception& error) {
        keep_input();
        fail("{}: {}; the input is in {}", target.name, error.what(), kept_name);
    }
    ::alarm(0);
}

struct Options {
    std::uint64_t runs = 0, part = 1, seed = 1;  // runs = 0: the length of the target's short run over `part`
    double seconds = 0;
    std::vector<std::string> files;
};

Options options_of(int argc, char** argv) {
    Options options;
    for (int i = 2; i < argc; ++i) {
        const std::string word = argv[i];
        if (word.starts_with("--runs="))
            options.runs = std::stoull(word.substr(7));
        else if (word.starts_with("--part="))
            options.part = std::stoull(word.substr(7));
        else if (word.starts_with("--seconds="))
            options.seconds = std::stod(word.substr(10));
        else if (word.starts_with("--seed="))
            options.seed = std::stoull(word.substr(7));
        else
            options.files.push_back(word);
    }
    return options;
}

void fuzz(const Target& target, const Options& options) {
    kept_name = fmt::format("fuzz-{}.input", target.name);
    for (const std::string& file : options.files) try_input(target, read_file(file));
    if (!options.files.empty()) return;
    const std::vector<std::string> seeds = target.seeds();
    for (const std::string& whole : seeds) try_input(target, whole);
    const std::uint64_t runs =
        options.runs > 0 ? options.runs : static_cast<std::uint64_t>(target.short_runs) / options.part;
    const double start = seconds_now();
    std::uint64_t n = 0;
    for (; options.seconds > 0 ? seconds_now() - start < options.seconds : n < runs; ++n)
        try_input(target, mutated(seeds, target.words, options.seed, n));
    fmt::print("{}: {} inputs in {:.1f} s, none did harm\n", target.name, n, seconds_now() - start);
    std::fflush(stdout);
}

void run(int argc, char** argv) {
    require(argc >= 2, "no target given; name one, or all");
    const std::string name = argv[1];
    if (name == "--list") {
        for (const Target& target : targets()) fmt::print("{}\n", target.name);
        return;
    }
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM})
        std::signal(signal, keep_and_end);
    const Options options = options_of(argc, argv);
    if (name != "all") return fuzz(target_of(name), options);
    for (const Target& target : targets()) fuzz(target, options);
}

}  // namespace
}  // namespace switchyard::fuzz

int main(int argc, char** argv) {
    if (int code = 0; switchyard::serve_structure(argc, argv, code)) return code;
    try {
        switchyard::fuzz::run(argc, argv);
        return 0;
    } catch (const std::exception& error) {
        fmt::print("{}\n", error.what());
        return 1;
    }
}

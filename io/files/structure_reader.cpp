// The child is this program, started again by posix_spawn and without MPI. A plain fork() would copy a
// process with threads of MPI and OpenMP and with memory that is registered with the network hardware. The
// answer comes through a pipe: "s" at the start, then a letter (r: result, u: UserError, n: UnreadableError)
// and text.
#include "io/files/structure_reader.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "io/files/files.hpp"

extern char** environ;

namespace switchyard {
namespace {

constexpr const char* child_word = "--read-structure";
constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();
bool children_are_used = false;

std::map<std::string, StructureReader>& readers() {
    static std::map<std::string, StructureReader> all;
    return all;
}

std::string answer_of(const StructureReader& read, const std::string& path) {
    try {
        return "r" + read(path);
    } catch (const UnreadableError& error) {
        return "n" + std::string(error.what());
    } catch (const UserError& error) {
        return "u" + std::string(error.what());
    } catch (const std::exception& error) {  // out of memory
        return "n" + std::string(error.what());
    }
}

std::string result_of(const std::string& answer) {
    const std::string text = answer.substr(2);
    if (answer[1] == 'n') throw UnreadableError(text);
    if (answer[1] == 'u') throw UserError(text);
    return text;
}

struct Pipe {
    FileDescriptor read, write;
};

std::optional<Pipe> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
    return Pipe{FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

/// Returns nothing if the system cannot start another process.
std::optional<pid_t> start_child(const char* name, const std::string& path, int answers) {
    std::vector<std::string> words{"switchyard", child_word, name, path};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, answers, STDOUT_FILENO);
    // Discards what the C library prints about a damaged heap.
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    // A batch system that ends the job signals all its processes. The child ignores that, because its death
    // must tell something about the file only.
    sigset_t blocked;
    sigemptyset(&blocked);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&blocked, signal);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t child = 0;
    const int error =
        ::posix_spawn(&child, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) return std::nullopt;
    return child;
}

}  // namespace

RegisterStructureReader::RegisterStructureReader(const char* name, StructureReader read) {
    readers()[name] = std::move(read);
}

std::string read_structure(const char* name, const std::string& path, const StructureReader& read) {
    std::optional<Pipe> pipe;
    std::optional<pid_t> child;
    if (children_are_used && (pipe = make_pipe())) child = start_child(name, path, pipe->write);
    if (!child) return read(path);
    pipe->write.close();
    std::string answer;
    const std::string problem = read_to_end(pipe->read, answer, no_limit);
    int status = 0;
    while (::waitpid(*child, &status, 0) < 0 && errno == EINTR) {
    }
    require<UnreadableError>(problem.empty(), "`{}` could not be examined: {}; try again", path, problem);
    if (!answer.starts_with('s')) return read(path);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && answer.size() > 1) return result_of(answer);
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    require<UnreadableError>(
        signal != SIGKILL,
        "`{}` could not be examined: the process that read its structure was killed (too little "
        "memory?); try again with more",
        path);
    fail(
        "`{}` is damaged, or made to do harm: its structure {} (it was read in a process of its own, which "
        "ended with {} {}); use another file",
        path, signal == SIGXCPU ? "has no end" : "makes the HDF5 library crash",
        signal != 0 ? "signal" : "code", signal != 0 ? signal : WEXITSTATUS(status));
}

bool serve_structure(int argc, char** argv, int& exit_code) {
    children_are_used = true;
    if (argc != 4 || argv[1] != std::string(child_word)) return false;
    children_are_used = false;
    // A child that waits for a file system must not outlive its parent.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const rlimit processor{structure_limit_s, structure_limit_s + 1}, no_core{0, 0};
    ::setrlimit(RLIMIT_CPU, &processor);
    ::setrlimit(RLIMIT_CORE, &no_core);
    const auto found = readers().find(argv[2]);
    exit_code = 1;
    if (found == readers().end()) return true;
    try {
        write_all(STDOUT_FILENO, "s", "the answer");
        write_all(STDOUT_FILENO, answer_of(found->second, argv[3]), "the answer");
        exit_code = 0;
    } catch (const std::exception&) {  // the parent sees that there is no answer
    }
    return true;
}

}  // namespace switchyard

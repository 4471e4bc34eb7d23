// Preloaded into runs by tests (disk_faults.py): calls on checkpoint files are written down, and those that a
// rule names fail or wait. What tests then know of the order of calls, on all ranks and threads, they know
// without a clock. Rules are read anew at every call: a test changes them while a run goes on.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

namespace {

/// "RANK CALL FROM ERROR NAME": on that rank, the FROM-th such call and later ones on a file whose name holds
/// NAME fail with that errno, or wait until the rule has gone ("wait"). CALL may begin with "main.",
/// "writer." or "child.": who calls.
struct Rule {
    std::string rank, call, error, name, line;
    int from = 1;
};

const char* folder() {
    static const char* const value = std::getenv("SWITCHYARD_TEST_DISK");
    return value;
}

std::string rank() {
    for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"})
        if (const char* value = std::getenv(variable)) return value;
    return "0";
}

/// The main or another thread of a rank, or the process that it starts to parse the structure of a file.
std::string thread() {
    std::string word, second;
    std::ifstream words("/proc/self/cmdline");
    std::getline(words, word, '\0');
    std::getline(words, second, '\0');
    return second == "--read-structure" ? "child" : getpid() == gettid() ? "main" : "writer";
}

bool is_checkpoint(const std::string& path) {
    return folder() && path.find("/checkpoints/step_") != std::string::npos;
}

std::string path_of(int fd) {
    char path[4096];
    const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
    return std::string(path, size < 0 ? 0 : static_cast<std::size_t>(size));
}

/// One write to a file opened with O_APPEND: lines of all ranks in the order of the calls.
void note(const std::string& call, const std::string& path, const std::string& result, long bytes,
          long offset) {
    char line[512];
    const int size = std::snprintf(line, sizeof line, "%s %d %s %s %s %s %ld %ld\n", rank().c_str(), getpid(),
                                   thread().c_str(), call.c_str(), result.c_str(),
                                   path.substr(path.rfind('/') + 1).c_str(), bytes, offset);
    const int fd =
        open((folder() + std::string("/trace")).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, static_cast<std::size_t>(size)) != size) std::abort();
    close(fd);
}

template <class Matches>
bool find_rule(Rule& found, Matches matches) {
    std::ifstream file(folder() + std::string("/rules"));
    for (std::string line; std::getline(file, line);) {
        Rule rule;
        std::istringstream(line) >> rule.rank >> rule.call >> rule.from >> rule.error >> rule.name;
        rule.line = line;
        if (!matches(rule)) continue;
        found = rule;
        return true;
    }
    return false;
}

bool reached(const Rule& rule) {
    static std::mutex mutex;
    static std::map<std::string, int> calls;
    const std::lock_guard lock(mutex);
    return ++calls[rule.line] >= rule.from;
}

/// The errno that the call is to fail with, or 0; waits where it is to wait.
int fault(const std::string& call, const std::string& path) {
    const std::string own = rank();
    Rule rule;
    const auto matches = [&](const Rule& r) {
        return r.rank == own && (r.call == call || r.call == thread() + "." + call) &&
               path.find(r.name) != std::string::npos;
    };
    if (!find_rule(rule, matches) || !reached(rule)) return 0;
    if (rule.error != "wait") {
        note(call, path, rule.error, 0, 0);
        return std::atoi(rule.error.c_str());
    }
    note(call, path, "waits", 0, 0);
    Rule same;
    while (find_rule(same, [&](const Rule& r) { return r.line == rule.line; })) usleep(1000);
    return 0;
}

template <class Function>
Function original(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

template <class Call>
auto watched(const char* name, const std::string& path, long offset, Call call) -> decltype(call()) {
    if (!is_checkpoint(path)) return call();
    if (const int error = fault(name, path)) {
        errno = error;
        return -1;
    }
    const auto result = call();
    const int error = errno;
    note(name, path, result < 0 ? std::to_string(error) : "ok", static_cast<long>(result), offset);
    errno = error;
    return result;
}

int open_as(const char* symbol, const char* path, int flags, mode_t mode) {
    const auto call = original<int (*)(const char*, int, mode_t)>(symbol);
    return watched("open", path, 0, [&] { return call(path, flags, mode); });
}

mode_t mode_of(int flags, va_list arguments) {
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;
}

using Write = ssize_t (*)(int, const void*, size_t, off_t);
using Read = ssize_t (*)(int, void*, size_t, off_t);

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_as("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_as("open64", path, flags, mode);
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
    static const auto call = original<Write>("pwrite");
    return watched("pwrite", path_of(fd), offset, [&] { return call(fd, data, bytes, offset); });
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t offset) {
    return pwrite(fd, data, bytes, offset);
}

ssize_t pread(int fd, void* data, size_t bytes, off_t offset) {
    static const auto call = original<Read>("pread");
    return watched("pread", path_of(fd), offset, [&] { return call(fd, data, bytes, offset); });
}

ssize_t pread64(int fd, void* data, size_t bytes, off_t offset) {
    return pread(fd, data, bytes, offset);
}

int fsync(int fd) {
    static const auto call = original<int (*)(int)>("fsync");
    return watched("fsync", path_of(fd), 0, [&] { return call(fd); });
}

int rename(const char* from, const char* to) {
    static const auto call = original<int (*)(const char*, const char*)>("rename");
    return watched("rename", from, 0, [&] { return call(from, to); });
}
}

// Makes a run directory and writes its files.
#include "io/run/run_directory.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "core/error.hpp"
#include "core/host.hpp"

namespace switchyard {
namespace {

void make_directory(const std::string& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    require(!error && std::filesystem::is_directory(path),
            "cannot make run directory `{}`: {} (run.dir holds log and checkpoints); choose another run.dir",
            path, error ? error.message() : "it exists and is not a folder");
}

/// Permission bits do not tell for network file systems and for root, so a file is written.
void check_writable(const std::string& directory) {
    const std::string probe = directory + "/.write_test";
    try {
        write_all(create_anew(probe), "switchyard\n", probe);
    } catch (const UserError& problem) {
        ::unlink(probe.c_str());
        fail(
            "run directory `{}` is not writable: {} (run.dir holds log and checkpoints); choose another "
            "run.dir or free space",
            directory, without_advice(problem.what()));
    }
    ::unlink(probe.c_str());
}

/// Removes the partial files of processes that were killed while they wrote their status.
void remove_unfinished(const std::string& directory) {
    std::error_code ignored;
    for (std::filesystem::directory_iterator entry(directory, ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
        const std::string name = entry->path().filename().string();
        if (name.starts_with("status.json.") && name.ends_with(".partial")) ::unlink(entry->path().c_str());
    }
}

}  // namespace

std::string utc_time() {
    return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

RunDirectory::RunDirectory(const std::string& path) : path_(path) {
    require(!path.empty(), "run.dir is empty (it holds log and checkpoints); name a folder");
    while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
    make_directory(path_);
    check_writable(path_);
    lock_ = std::make_unique<RunLock>(path_, file("lock"));
    remove_unfinished(path_);
    make_directory(checkpoints());
    check_writable(checkpoints());
}

void RunDirectory::write_config(std::string_view text) const {
    write_file(file("config.cfg"), text);
}

void RunDirectory::write_environment(const nlohmann::ordered_json& environment) const {
    using nlohmann::ordered_json;
    write_file(file("environment.json"),
               environment.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void RunDirectory::write_status(const RunStatus& status) const {
    write_run_status(path_, status);
}

namespace {

/// Overwrites the content of a file in place, without asking the file system for space.
bool overwrite_file(const std::string& path, std::string_view text) {
    const FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat status {};
    return fd >= 0 && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
           ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
           ::ftruncate(fd, static_cast<off_t>(text.size())) == 0;
}

}  // namespace

void write_run_status(const std::string& directory, const RunStatus& status) {
    using nlohmann::ordered_json;
    const ordered_json object = {{"outcome", status.outcome},
                                 {"reason", status.reason},
                                 {"step", status.step},
                                 {"time", status.time.empty() ? utc_time() : status.time}};
    const std::string path = directory + "/status.json";
    const std::string text = object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    try {
        write_file(path, text, fmt::format("{}.{}.{}.partial", path, host_name(), ::getpid()));
    } catch (const UserError&) {
        // A full disk may have no room for a second file; a write that is not atomic is then better than
        // none.
        if (!overwrite_file(path, text)) throw;
    }
}

std::optional<std::string> RunDirectory::read_config() const {
    if (!exists_at(file("config.cfg"))) return std::nullopt;
    return read_file(file("config.cfg"));
}

std::optional<RunStatus> RunDirectory::read_status() const {
    return read_run_status(path_);
}

std::optional<RunStatus> read_run_status(const std::string& directory) {
    const std::string path = directory + "/status.json";
    try {
        if (!exists_at(path)) return std::nullopt;
        const auto object = nlohmann::json::parse(read_file(path));
        const auto& step = object.at("step");
        if (!step.is_number_integer() || step.get<std::int64_t>() < 0) return std::nullopt;
        return RunStatus{object.at("outcome"), object.at("reason"), step, object.at("time")};
    } catch (const nlohmann::json::exception&) {
        return std::nullopt;
    } catch (const UserError&) {
        return std::nullopt;
    }
}

}  // namespace switchyard

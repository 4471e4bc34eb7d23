// The POSIX calls behind files.hpp.
#include "io/files/files.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/error.hpp"
#include "core/sign_of_life.hpp"

namespace switchyard {
namespace {

constexpr std::size_t call_limit = std::size_t{1} << 30;  // bytes per call: below 2 GiB

}  // namespace

FileDescriptor::~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::close() {
    return ::close(std::exchange(fd_, -1));
}

namespace {

/// The type of what a path leads to; 0: nothing.
mode_t type_at(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return status.st_mode & S_IFMT;
    require<UnreadableError>(errno == ENOENT || errno == ENOTDIR, "cannot look at `{}` {}", path,
                             system_problem);
    return 0;
}

}  // namespace

bool exists_at(const std::string& path) {
    return type_at(path) != 0;
}

bool is_folder_at(const std::string& path) {
    return type_at(path) == S_IFDIR;
}

FileDescriptor open_regular(const std::string& path) {
    FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (fd < 0 && errno == ENXIO) fail("`{}` is not a regular file; check the path", path);  // a socket
    require<UnreadableError>(fd >= 0, "cannot open `{}` ({}); check the path", path, system_reason);
    struct stat status {};
    require<UnreadableError>(::fstat(fd, &status) == 0, "cannot open `{}` {}", path, system_problem);
    require(S_ISREG(status.st_mode), "`{}` is not a regular file but {}; check the path", path,
            S_ISDIR(status.st_mode)    ? "a folder"
            : S_ISFIFO(status.st_mode) ? "a pipe"
                                       : "a device");
    return fd;
}

std::uint64_t size_of_file(int fd, const std::string& path) {
    struct stat status {};
    require(::fstat(fd, &status) == 0, "cannot read `{}` {}", path, system_problem);
    return static_cast<std::uint64_t>(status.st_size);
}

FileDescriptor open_kept(const std::string& path, int flags) {
    FileDescriptor fd(::open(
        path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags, 0666));
    if (fd < 0 && errno == ELOOP)
        fail("`{}` is a symbolic link (what it leads to would be written); remove the link", path);
    require(fd >= 0, "cannot open `{}` {}", path, system_problem);
    struct stat status {};
    require(::fstat(fd, &status) == 0 && S_ISREG(status.st_mode),
            "`{}` is not a regular file (it is written here); move it away", path);
    return fd;
}

FileDescriptor create_anew(const std::string& path) {
    ::unlink(path.c_str());
    FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    require(fd >= 0, "cannot create `{}` {}", path, system_problem);
    return fd;
}

FileIdentity identity_of(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return {};
    return {status.st_dev, status.st_ino};
}

bool is_still_at(const std::string& path, const FileIdentity& file) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 && status.st_dev == file.device &&
           status.st_ino == file.number;
}

FileDescriptor create_held(const std::string& path) {
    const FileDescriptor old(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    require(old < 0 || ::flock(old, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK,
            "`{}` is being written by another process (one of them would replace the other's file); wait for "
            "it, or choose another name",
            path);
    FileDescriptor fd = create_anew(path);
    ::flock(fd, LOCK_EX | LOCK_NB);  // a file system without locks has is_still_at()
    return fd;
}

std::string directory_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

void ignore_file_size_signal() {
    struct sigaction action {};
    if (::sigaction(SIGXFSZ, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
        action.sa_handler = SIG_IGN;
        ::sigaction(SIGXFSZ, &action, nullptr);
    }
}

std::string write_fully(int fd, const std::byte* data, std::size_t bytes, std::uint64_t offset) {
    while (bytes > 0) {
        sign_of_life("writing a file");
        const ssize_t done = ::pwrite(fd, data, std::min(bytes, call_limit), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0)
            return fmt::format("write at byte {}: {}", offset, std::strerror(done < 0 ? errno : EIO));
        data += done, bytes -= done, offset += done;
    }
    return {};
}

std::string read_fully(int fd, std::byte* data, std::size_t bytes, std::uint64_t offset) {
    while (bytes > 0) {
        sign_of_life("reading a file");
        const ssize_t done = ::pread(fd, data, std::min(bytes, call_limit), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return fmt::format("read at byte {}: {}", offset, system_reason);
        if (done == 0) return fmt::format("the file ends at byte {}", offset);
        data += done, bytes -= done, offset += done;
    }
    return {};
}

void write_all(int fd, std::string_view bytes, const std::string& path) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(fd, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        require(written > 0, "cannot write `{}` {}", path, system_problem);
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
}

void sync_directory(const std::string& directory) {
    const FileDescriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd >= 0) ::fsync(fd);
}

void publish_file(const std::string& partial, const std::string& path) {
    {
        const FileDescriptor fd(::open(partial.c_str(), O_RDONLY | O_CLOEXEC));
        require(fd >= 0 && ::fsync(fd) == 0, "cannot sync `{}` {}", partial, system_problem);
    }
    require(std::rename(partial.c_str(), path.c_str()) == 0, "cannot rename `{}` to `{}` {}", partial, path,
            system_problem);
    sync_directory(directory_of(path));
}

void write_file(const std::string& path, std::string_view text) {
    write_file(path, text, path + ".partial");
}

void write_file(const std::string& path, std::string_view text, const std::string& partial) {
    try {
        {
            const FileDescriptor fd = create_anew(partial);
            write_all(fd, text, partial);
        }
        publish_file(partial, path);
    } catch (...) {
        ::unlink(partial.c_str());
        throw;
    }
}

std::string read_to_end(int fd, std::string& text, std::uint64_t max_bytes) {
    char block[65536];
    while (text.size() <= max_bytes) {
        const ssize_t count = ::read(fd, block, sizeof block);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return std::strerror(errno);
        if (count == 0) break;
        text.append(block, static_cast<std::size_t>(count));
    }
    return {};
}

std::string read_file(const std::string& path, std::uint64_t max_bytes) {
    const FileDescriptor fd = open_regular(path);
    std::string text;
    const std::string problem = read_to_end(fd, text, max_bytes);
    require(problem.empty(), "cannot read `{}` ({}); {}", path, problem, reading_advice);
    require(text.size() <= max_bytes,
            "`{}` has more than {} bytes (no file that is read here is so long); check the path", path,
            max_bytes);
    return text;
}

}  // namespace switchyard

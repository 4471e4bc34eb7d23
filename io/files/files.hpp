// Durable files with plain POSIX calls: sync, rename, write as a whole.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace switchyard {

/// Owns a file descriptor.
class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileDescriptor();
    operator int() const { return fd_; }
    /// What close(2) says, once; the destructor then has nothing to do.
    int close();

  private:
    int fd_ = -1;
};

/// "." for a bare name.
std::string directory_of(const std::string& path);

/// From now on a write beyond `ulimit -f` is an error, not the end of the process.
void ignore_file_size_signal();

/// Whole transfers, short ones and interruptions continued, with signs of life; empty, or the error as text.
std::string write_fully(int fd, const std::byte* data, std::size_t bytes, std::uint64_t offset);
std::string read_fully(int fd, std::byte* data, std::size_t bytes, std::uint64_t offset);

/// Writes all bytes or throws UserError naming `path` and the reason (disk full, ...).
void write_all(int fd, std::string_view bytes, const std::string& path);

/// fsync of a directory, so that a rename in it survives a power failure. File systems that cannot are no
/// error.
void sync_directory(const std::string& directory);

/// Syncs `partial`, renames it to `path`, syncs the directory: `path` is the old file or the whole new one.
void publish_file(const std::string& partial, const std::string& path);

/// Replaces `path` by `text` in one step. Throws UserError; the old file is then untouched.
void write_file(const std::string& path, std::string_view text);
/// The same by way of a file `partial` of the caller's own: for paths that several processes write.
void write_file(const std::string& path, std::string_view text, const std::string& partial);

/// Throws UserError when it cannot be read.
std::string read_file(const std::string& path);

}  // namespace switchyard

// Files with plain POSIX calls: durable writes (sync, rename, as a whole), and reads of files that others
// left behind. What is read is a regular file, opened without waiting; what is created never goes through a
// link that someone put where a name can be foreseen.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace switchyard {

/// A file that may be whole, but cannot be read here: the system refuses it (permission, locks, too many open
/// files, ...), or another tool stored it in a way that is not read.
class UnreadableError : public UserError {
  public:
    using UserError::UserError;
};

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

/// A regular file for reading. A folder, FIFO, socket or device is refused without waiting for it. Throws
/// UnreadableError with what the system said, UserError for the wrong kind.
FileDescriptor open_regular(const std::string& path);

/// Bytes of an open file. Throws UserError.
std::uint64_t size_of_file(int fd, const std::string& path);

/// A regular file of a program of ours that is kept from run to run, for reading and writing; made where
/// there is none. `flags`: O_APPEND or 0. Links are not followed: this file is written. Throws UserError.
FileDescriptor open_kept(const std::string& path, int flags = 0);

/// An empty file of that name for writing. What had the name before is removed, not followed and not
/// overwritten: links may lead anywhere. Throws UserError.
FileDescriptor create_anew(const std::string& path);

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

/// Appends what is left of `fd` (a file or pipe) to `text`, and stops after `max_bytes` or a little more.
/// Returns an empty text, or the error.
std::string read_to_end(int fd, std::string& text, std::uint64_t max_bytes);

/// The whole of a regular file. Throws UserError when it cannot be read or has more than `max_bytes`.
inline constexpr std::uint64_t most_bytes_read = 100'000'000;
std::string read_file(const std::string& path, std::uint64_t max_bytes = most_bytes_read);

}  // namespace switchyard

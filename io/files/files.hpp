// Files through plain POSIX calls: durable writes (sync, then rename a complete file), and reads of files
// from anyone. Only regular files are read, and they are opened without waiting. Files are never created
// through a link that someone may have put under a predictable name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace switchyard {

/// The file cannot be read here but may be intact: the system refuses it (permission, locks, too many open
/// files, ...), or another tool stored it in a form that is not supported.
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
    /// Returns the result of close(2). The destructor then does nothing.
    int close();

  private:
    int fd_ = -1;
};

/// Whether there is a file or folder, and whether it is a folder; links are followed. Throws UnreadableError
/// if the system does not tell (no permission, a loop of links).
bool exists_at(const std::string& path);
bool is_folder_at(const std::string& path);

/// Opens a regular file for reading. A folder, FIFO, socket or device is refused without waiting for it.
/// Throws UnreadableError with the system's reason, UserError for the wrong kind of file.
FileDescriptor open_regular(const std::string& path);

/// The size of an open file in bytes. Throws UserError.
std::uint64_t size_of_file(int fd, const std::string& path);

/// Opens a regular file that our programs keep from run to run, for reading and writing, and creates it if it
/// is missing. `flags`: O_APPEND or 0. Links are not followed, because the file is written. Throws UserError.
FileDescriptor open_kept(const std::string& path, int flags = 0);

/// Creates an empty file for writing. Anything that has the name is removed first; it is neither followed nor
/// overwritten, because links may lead anywhere. Throws UserError.
FileDescriptor create_anew(const std::string& path);

/// The file that was made under a name, which another process may have removed and made anew.
struct FileIdentity {
    std::uint64_t device = 0, number = 0;
};
FileIdentity identity_of(int fd);
/// True if `path` still leads to that file.
bool is_still_at(const std::string& path, const FileIdentity&);
/// As create_anew(), and locked while it is open. Throws UserError if a process that runs holds a file of
/// this name, as two commands with the same output would.
FileDescriptor create_held(const std::string& path);

/// The directory part of a path; "." if there is none.
std::string directory_of(const std::string& path);

/// From now on a write beyond `ulimit -f` is an error and does not end the process.
void ignore_file_size_signal();

/// What to do when a transfer has failed, in messages that hold the error that these functions return.
inline constexpr std::string_view reading_advice = "check that its file system works, then try again",
                                  writing_advice = "free space, raise its limits, or choose another place";

/// Transfer all bytes: short transfers and interruptions are continued, with signs of life. Return an empty
/// text, or the error.
std::string write_fully(int fd, const std::byte* data, std::size_t bytes, std::uint64_t offset);
std::string read_fully(int fd, std::byte* data, std::size_t bytes, std::uint64_t offset);

/// Writes all bytes or throws UserError naming `path` and the reason (disk full, ...).
void write_all(int fd, std::string_view bytes, const std::string& path);

/// fsync of a directory, so that a rename in it survives a power failure. File systems that do not support it
/// are ignored.
void sync_directory(const std::string& directory);

/// Syncs `partial`, renames it to `path` and syncs the directory, so that `path` is either the old file or
/// the complete new one.
void publish_file(const std::string& partial, const std::string& path);

/// Replaces `path` by `text` in one step. If it throws UserError, the old file is unchanged.
void write_file(const std::string& path, std::string_view text);
/// The same through a temporary file `partial` of the caller's, for paths that several processes write.
void write_file(const std::string& path, std::string_view text, const std::string& partial);

/// Appends what is left of `fd` (a file or pipe) to `text`, and stops after `max_bytes` or a little more.
/// Returns an empty text, or the error.
std::string read_to_end(int fd, std::string& text, std::uint64_t max_bytes);

/// Returns the content of a regular file. Throws UserError if it cannot be read or has more than `max_bytes`.
inline constexpr std::uint64_t most_bytes_read = 100'000'000;
std::string read_file(const std::string& path, std::uint64_t max_bytes = most_bytes_read);

}  // namespace switchyard

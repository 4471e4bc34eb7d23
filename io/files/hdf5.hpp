// RAII HDF5 handles and checked calls. Private to io/: no other folder includes it.
#pragma once

// Calls and structures that have versions are those of release 1.10, which later releases offer too.
#define H5_USE_110_API 1
#include <hdf5.h>

#include <string>
#include <utility>

namespace switchyard::hdf5 {

/// Owns an identifier and closes it with the given function. Throws for negative identifiers: UserError with
/// the innermost message of the HDF5 error stack, UnreadableError if the system refused.
class Handle {
  public:
    using Close = herr_t (*)(hid_t);
    Handle() = default;
    Handle(hid_t id, Close close, const char* call);
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
    Handle& operator=(Handle&& other) noexcept;
    ~Handle() { reset(); }
    void reset();
    /// Returns the identifier, which is not closed.
    hid_t release() { return std::exchange(id_, -1); }
    operator hid_t() const { return id_; }

  private:
    hid_t id_ = -1;
    Close close_ = nullptr;
};

/// Throws UserError with the HDF5 error stack if `status` is negative.
void check(herr_t status, const char* call);
#define SWITCHYARD_HDF5(call) ::switchyard::hdf5::check((call), #call)

/// To be called before anything else of HDF5: turns off its own printing of errors, its clean-up at exit, its
/// locks and the loading of filters (once per process).
void silence_errors();

/// Property list for files: closing a file closes all its objects, and files are not locked (some parallel
/// file systems refuse flock, and a run directory has one writer anyway).
Handle file_access();

/// Opens a regular file for reading, without locks. Throws UnreadableError with the system's reason,
/// UserError if the content is wrong.
Handle open_file(const std::string& path);

/// Creates a file. Anything that has the name is replaced, never followed.
Handle create_file(const std::string& path, hid_t creation, hid_t access);
/// The same in an empty file that was just created.
Handle create_in(const std::string& path, hid_t creation, hid_t access);

}  // namespace switchyard::hdf5

// RAII HDF5 handles and checked calls. Private to io/: no other folder includes it.
#pragma once

// Of calls and structures that have versions, those of release 1.10, which later ones offer as well.
#define H5_USE_110_API 1
#include <hdf5.h>

#include <string>
#include <utility>

namespace switchyard::hdf5 {

/// Owns an identifier and closes it with the function given; negative identifiers throw UserError with the
/// HDF5 error stack's innermost message, UnreadableError where the system refused.
class Handle {
  public:
    using Close = herr_t (*)(hid_t);
    Handle() = default;
    Handle(hid_t id, Close close, const char* call);
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
    Handle& operator=(Handle&& other) noexcept;
    ~Handle() { reset(); }
    void reset();
    /// Gives the identifier up without closing it.
    hid_t release() { return std::exchange(id_, -1); }
    operator hid_t() const { return id_; }

  private:
    hid_t id_ = -1;
    Close close_ = nullptr;
};

/// Throws UserError with the HDF5 error stack when `status` is negative.
void check(herr_t status, const char* call);
#define SWITCHYARD_HDF5(call) ::switchyard::hdf5::check((call), #call)

/// Before anything else of HDF5: turns off its own printing of errors, its clean-up at exit, its locks and
/// the loading of filters (once per process).
void silence_errors();

/// Property list of files: closing closes all, and nothing is locked (flock is refused on some parallel file
/// systems, and a run directory has one writer anyway).
Handle file_access();

/// Opens a regular file for reading, without locks. Throws UnreadableError with what the system said,
/// UserError where the contents are wrong.
Handle open_file(const std::string& path);

/// Creates a file in place of whatever has that name, never through a link.
Handle create_file(const std::string& path, hid_t creation, hid_t access);

}  // namespace switchyard::hdf5

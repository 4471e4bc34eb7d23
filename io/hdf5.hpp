// RAII HDF5 handles and checked calls. Private to io/: no other folder includes it.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

namespace switchyard::hdf5 {

/// Owns an identifier and closes it with the function given; negative identifiers throw UserError with the HDF5 error
/// stack's innermost message.
class Handle {
  public:
    using Close = herr_t (*)(hid_t);
    Handle() = default;
    Handle(hid_t id, Close close, const char* call);
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
    Handle& operator=(Handle&& other) noexcept;
    ~Handle() { reset(); }
    void reset();
    operator hid_t() const { return id_; }

  private:
    hid_t id_ = -1;
    Close close_ = nullptr;
};

/// Throws UserError with the HDF5 error stack when `status` is negative.
void check(herr_t status, const char* call);
#define SWITCHYARD_HDF5(call) ::switchyard::hdf5::check((call), #call)

/// Turns off HDF5's own printing of errors (once per process).
void silence_errors();

}  // namespace switchyard::hdf5

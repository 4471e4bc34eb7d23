// HDF5 handles and errors. The library's own clean-up at exit is turned off: after a close that failed (disk
// full) it would close the same file again, and hang or crash.
#include "io/files/hdf5.hpp"

#include <mutex>
#include <regex>

#include "core/error.hpp"

namespace switchyard::hdf5 {
namespace {

herr_t take_innermost(unsigned n, const H5E_error2_t* error, void* text) {
    if (n == 0) *static_cast<std::string*>(text) = error->desc ? error->desc : "";
    return 0;
}

std::string innermost_message() {
    std::string text;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &text);
    H5Eclear2(H5E_DEFAULT);
    // A failed system call comes with twelve items in two lines; one says why.
    std::smatch found;
    if (std::regex_search(text, found, std::regex("error message = '([^']*)'"))) return found[1];
    return text.empty() ? "no further message" : text;
}

}  // namespace

Handle::Handle(hid_t id, Close close, const char* call) : id_(id), close_(close) {
    if (id < 0) fail("{} failed: {}", call, innermost_message());
}

Handle& Handle::operator=(Handle&& other) noexcept {
    if (this != &other) {
        reset();
        id_ = std::exchange(other.id_, -1);
        close_ = other.close_;
    }
    return *this;
}

void Handle::reset() {
    const hid_t id = release();
    if (id >= 0) close_(id);
}

void check(herr_t status, const char* call) {
    if (status < 0) fail("{} failed: {}", call, innermost_message());
}

void silence_errors() {
    static std::once_flag once;
    std::call_once(once, [] {
        H5dont_atexit();
        H5open();
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    });
}

void no_locking([[maybe_unused]] hid_t file_access) {
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    SWITCHYARD_HDF5(H5Pset_file_locking(file_access, false, true));
#endif
}

}  // namespace switchyard::hdf5

// HDF5 handles and errors. The library's own clean-up at exit is turned off, because after a failed close
// (disk full) it would close the same file again, and hang or crash.
#include "io/files/hdf5.hpp"

#include <cstdlib>
#include <mutex>
#include <regex>

#include "core/error.hpp"
#include "io/files/files.hpp"

namespace switchyard::hdf5 {
namespace {

herr_t take_innermost(unsigned n, const H5E_error2_t* error, void* text) {
    if (n == 0) *static_cast<std::string*>(text) = error->desc ? error->desc : "";
    return 0;
}

/// Throws what the error stack holds. If the system refused a call, the file may be intact (UnreadableError);
/// a failed read (EIO) may be the file's fault.
[[noreturn]] void fail_with_stack(const char* call) {
    std::string text;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &text);
    H5Eclear2(H5E_DEFAULT);
    // A failed system call fills the stack with twelve items on two lines, of which one gives the reason.
    std::smatch found;
    if (std::regex_search(text, found, std::regex("errno = ([0-9]+), error message = '([^']*)'"))) {
        if (std::stoi(found[1]) == EIO) fail("{} failed: {}", call, found[2].str());
        fail<UnreadableError>("{} failed: {}", call, found[2].str());
    }
    fail("{} failed: {}", call, text.empty() ? "no further message" : text);
}

}  // namespace

Handle::Handle(hid_t id, Close close, const char* call) : id_(id), close_(close) {
    if (id < 0) fail_with_stack(call);
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
    if (status < 0) fail_with_stack(call);
}

void silence_errors() {
    static std::once_flag once;
    std::call_once(once, [] {
        // The environment variable overrides the property list, and older releases know nothing else.
        ::setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1);
        H5dont_atexit();
        H5open();
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        // Otherwise HDF5 would search a folder for the code of an unknown filter and load it.
        H5PLset_loading_state(0);
    });
}

Handle file_access() {
    silence_errors();
    Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
    SWITCHYARD_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG));
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    SWITCHYARD_HDF5(H5Pset_file_locking(access, false, true));
#endif
    return access;
}

Handle open_file(const std::string& path) {
    const Handle access = file_access();
    const FileDescriptor readable = open_regular(path);  // the system itself reports errors of opening
    return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose, "H5Fopen"};
}

Handle create_file(const std::string& path, hid_t creation, hid_t access) {
    create_anew(path).close();
    return create_in(path, creation, access);
}

Handle create_in(const std::string& path, hid_t creation, hid_t access) {
    return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, "H5Fcreate"};
}

}  // namespace switchyard::hdf5

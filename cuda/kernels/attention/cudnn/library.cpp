// Loads cuDNN by the name that its major version has on every system.
#include "cuda/kernels/attention/cudnn/library.hpp"

#include <dlfcn.h>

#include <type_traits>

#include "core/error.hpp"

namespace switchyard::cuda::cudnn {
namespace {

/// Earlier ones do not take minus infinity for a score that is masked.
constexpr std::size_t first_version = 91000;

struct Loaded {
    Library library{};
    std::string problem;
};

void load(Loaded& result) {
    void* const handle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        result.problem = fmt::format("libcudnn.so.9 cannot be loaded: {}", dlerror());
        return;
    }
    const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
        if (!function && result.problem.empty())
            result.problem = fmt::format("libcudnn.so.9 has no function {}", name);
    };
    Library& l = result.library;
    find(l.version, "cudnnGetVersion");
    find(l.error_string, "cudnnGetErrorString");
    find(l.create, "cudnnCreate");
    find(l.set_stream, "cudnnSetStream");
    find(l.create_descriptor, "cudnnBackendCreateDescriptor");
    find(l.destroy_descriptor, "cudnnBackendDestroyDescriptor");
    find(l.set_attribute, "cudnnBackendSetAttribute");
    find(l.get_attribute, "cudnnBackendGetAttribute");
    find(l.finalize, "cudnnBackendFinalize");
    find(l.execute, "cudnnBackendExecute");
    if (result.problem.empty() && l.version() < first_version)
        result.problem =
            fmt::format("libcudnn.so.9 is version {}.{}, and 9.10 is the first whose attention can be used",
                        l.version() / 10000, l.version() / 100 % 100);
}

const Loaded& loaded() {
    static const Loaded* const result = [] {
        auto* const made = new Loaded;
        load(*made);
        return made;
    }();
    return *result;
}

}  // namespace

const std::string& problem_with_library() {
    return loaded().problem;
}

const Library& library() {
    internal_check(loaded().problem.empty(), "cuDNN is used: {}", loaded().problem);
    return loaded().library;
}

}  // namespace switchyard::cuda::cudnn

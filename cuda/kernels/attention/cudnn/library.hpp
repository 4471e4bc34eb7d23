// The functions of cuDNN's graph interface that cuda/ calls. The library is loaded when it is first needed:
// programs start where it is missing, and say so only where it is asked for.
#pragma once

#include <cudnn_graph.h>

#include <string>

namespace switchyard::cuda::cudnn {

struct Library {
    decltype(&cudnnGetVersion) version;
    decltype(&cudnnGetErrorString) error_string;
    decltype(&cudnnCreate) create;
    decltype(&cudnnSetStream) set_stream;
    decltype(&cudnnBackendCreateDescriptor) create_descriptor;
    decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor;
    decltype(&cudnnBackendSetAttribute) set_attribute;
    decltype(&cudnnBackendGetAttribute) get_attribute;
    decltype(&cudnnBackendFinalize) finalize;
    decltype(&cudnnBackendExecute) execute;
};

/// Why the library cannot be used here; "" if it can.
const std::string& problem_with_library();
/// Only where there is no problem.
const Library& library();

}  // namespace switchyard::cuda::cudnn

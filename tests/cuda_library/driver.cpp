// A driver for machines without one: libcuda.so.1 that loads whatever kernels it is given, knows no device
// and starts nothing. With it the real cuDNN chooses and compiles its kernels for GPUs that are described to
// it.
extern "C" {

constexpr int success = 0, stub_library = 34;  // of CUresult

#define SWITCHYARD_LOADS(name) \
    int name(void** handle) {  \
        static int anything;   \
        *handle = &anything;   \
        return success;        \
    }
SWITCHYARD_LOADS(cuLibraryLoadData)
SWITCHYARD_LOADS(cuKernelGetFunction)
SWITCHYARD_LOADS(cuLibraryGetKernel)
SWITCHYARD_LOADS(cuModuleGetFunction)
SWITCHYARD_LOADS(cuModuleLoadData)
SWITCHYARD_LOADS(cuModuleLoadDataEx)

#define SWITCHYARD_AGREES(name) \
    int name() {                \
        return success;         \
    }
SWITCHYARD_AGREES(cuFuncGetAttribute)
SWITCHYARD_AGREES(cuFuncSetAttribute)
SWITCHYARD_AGREES(cuKernelGetAttribute)
SWITCHYARD_AGREES(cuKernelSetAttribute)
SWITCHYARD_AGREES(cuLibraryUnload)
SWITCHYARD_AGREES(cuModuleUnload)
SWITCHYARD_AGREES(cuGetErrorName)
SWITCHYARD_AGREES(cuGetErrorString)

int cuDriverGetVersion(int* version) {
    *version = 13000;
    return success;
}

#define SWITCHYARD_REFUSES(name) \
    int name() {                 \
        return stub_library;     \
    }
SWITCHYARD_REFUSES(cuCtxGetCurrent)
SWITCHYARD_REFUSES(cuCtxGetDevice)
SWITCHYARD_REFUSES(cuCtxGetLimit)
SWITCHYARD_REFUSES(cuCtxPopCurrent)
SWITCHYARD_REFUSES(cuCtxPushCurrent)
SWITCHYARD_REFUSES(cuDeviceGet)
SWITCHYARD_REFUSES(cuDeviceGetAttribute)
SWITCHYARD_REFUSES(cuDeviceGetCount)
SWITCHYARD_REFUSES(cuDevicePrimaryCtxRelease)
SWITCHYARD_REFUSES(cuDevicePrimaryCtxReset)
SWITCHYARD_REFUSES(cuDevicePrimaryCtxRetain)
SWITCHYARD_REFUSES(cuInit)
SWITCHYARD_REFUSES(cuLaunchCooperativeKernel)
SWITCHYARD_REFUSES(cuLaunchKernel)
SWITCHYARD_REFUSES(cuLaunchKernelEx)
SWITCHYARD_REFUSES(cuLibraryLoadFromFile)
SWITCHYARD_REFUSES(cuLinkAddData)
SWITCHYARD_REFUSES(cuLinkAddData_v2)
SWITCHYARD_REFUSES(cuLinkAddFile_v2)
SWITCHYARD_REFUSES(cuLinkComplete)
SWITCHYARD_REFUSES(cuLinkCreate)
SWITCHYARD_REFUSES(cuLinkCreate_v2)
SWITCHYARD_REFUSES(cuLinkDestroy)
SWITCHYARD_REFUSES(cuMemcpyDtoH_v2)
SWITCHYARD_REFUSES(cuModuleGetGlobal_v2)
SWITCHYARD_REFUSES(cuModuleLoadFatBinary)
SWITCHYARD_REFUSES(cuOccupancyMaxActiveBlocksPerMultiprocessor)
SWITCHYARD_REFUSES(cuOccupancyMaxPotentialClusterSize)
SWITCHYARD_REFUSES(cuStreamGetCtx)
SWITCHYARD_REFUSES(cuStreamSynchronize)
SWITCHYARD_REFUSES(cuTensorMapEncodeTiled)
}

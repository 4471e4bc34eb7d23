// The part of NCCL that cuda/ uses, for g++: what is not here does not compile. Functions are those of
// tests/cuda_emulation/nccl.cpp; their meaning is the library's.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7
};
enum ncclDataType_t { ncclUint8 = 1, ncclFloat32 = 7, ncclFloat64 = 8, ncclBfloat16 = 9 };
enum ncclRedOp_t { ncclSum = 0 };

const char* ncclGetErrorString(ncclResult_t);
ncclResult_t ncclGetVersion(int*);

struct ncclUniqueId {
    char internal[128];
};
using ncclComm_t = struct EmulatedNccl*;
ncclResult_t ncclGetUniqueId(ncclUniqueId*);
ncclResult_t ncclCommInitRank(ncclComm_t*, int ranks, ncclUniqueId, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t);
ncclResult_t ncclCommAbort(ncclComm_t);
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t*);

ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void*, std::size_t count, ncclDataType_t, int peer, ncclComm_t, cudaStream_t);
ncclResult_t ncclRecv(void*, std::size_t count, ncclDataType_t, int peer, ncclComm_t, cudaStream_t);
ncclResult_t ncclAllGather(const void* mine, void* all, std::size_t count, ncclDataType_t, ncclComm_t,
                           cudaStream_t);
ncclResult_t ncclAllReduce(const void* values, void* sums, std::size_t count, ncclDataType_t, ncclRedOp_t,
                           ncclComm_t, cudaStream_t);

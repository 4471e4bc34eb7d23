// Between the emulated NCCL, MPI and tests.
#pragma once

#include <nccl.h>

namespace emulation {

/// Work of NCCL that streams have not come to yet, counted by whoever adds and does it. While a rank waits in
/// MPI its device goes on, so that others who wait for its part of a collective do not wait for ever.
extern int nccl_work_waiting;

/// What ncclCommGetAsyncError() answers from now on.
void report_nccl_failure(ncclResult_t);

}  // namespace emulation

// Ranges of NVTX, for g++: CUDA_EMULATION_TRACE=1 prints them, so that tests can read them.
#pragma once

int nvtxRangePushA(const char* name);
int nvtxRangePop();

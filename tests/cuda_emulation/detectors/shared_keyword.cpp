// Does not compile: a __shared__ array would silently become private to each thread.
#include <cuda_runtime.h>

void kernel() {
    __shared__ float x[32];
    x[0] = 0;
}

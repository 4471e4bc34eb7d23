#include "kernels/magnitudes.hpp"

namespace switchyard::kernels {

int magnitude_bytes(DType dtype) {
    return static_cast<int>(size_of(dtype));
}

}  // namespace switchyard::kernels

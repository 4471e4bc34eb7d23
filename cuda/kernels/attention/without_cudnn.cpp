// Compiled where cuDNN was not found.
#include "core/error.hpp"
#include "cuda/kernels/attention/fused.hpp"

namespace switchyard::kernels::attention::fused {

std::string library_text() {
    return "";
}
std::string problem_with(const Extents&) {
    return "this program was built without it (CMake found no cudnn_graph.h of version 9.10 or later)";
}
std::int64_t sequences_at_once(const Extents&) {
    internal_check(false, "cuDNN in a program that was built without it");
    return 0;
}
std::size_t scratch_bytes(const Extents&) {
    internal_check(false, "cuDNN in a program that was built without it");
    return 0;
}
void forward(const Extents&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
    internal_check(false, "cuDNN in a program that was built without it");
}
void backward(const Extents&, const AttentionBackward&) {
    internal_check(false, "cuDNN in a program that was built without it");
}

}  // namespace switchyard::kernels::attention::fused

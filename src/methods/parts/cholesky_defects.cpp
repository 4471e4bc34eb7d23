#include "methods/parts/cholesky_defects.hpp"

#include <algorithm>

#include "kernels/reductions.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {

void CholeskyDefects::allocate(Arena& arena, kernels::StepScalars& scalars, std::int64_t count) {
    defects_ = arena.take(MemoryClass::workspace, DType::f64, {count});
    worst_slot_ = scalars.take();
    worst_ = scalars.slots(worst_slot_);
}

void CholeskyDefects::find_worst() const {
    kernels::max_abs(defects_, worst_);
}

std::int64_t CholeskyDefects::first_bad(std::span<const double> scalars) const {
    if (scalars[static_cast<std::size_t>(worst_slot_)] == 0) return -1;
    std::vector<double> defects(static_cast<std::size_t>(defects_.size()));
    kernels::download(defects_, defects.data());
    return std::find_if(defects.begin(), defects.end(), [](double x) { return x != 0; }) - defects.begin();
}

}  // namespace switchyard

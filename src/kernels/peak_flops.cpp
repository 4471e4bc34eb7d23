// The speed of products on this machine, measured by the back end's own points in time.
#include <algorithm>
#include <optional>

#include "core/arena.hpp"
#include "core/rng.hpp"
#include "core/stamps.hpp"
#include "core/timer.hpp"
#include "kernels/matmul.hpp"
#include "kernels/random.hpp"
#include "kernels/workspace.hpp"

namespace switchyard::kernels {

double measure_peak_flops(DType dtype) {
    const std::int64_t n = peak_product_size(dtype);
    Tensor factor, result;
    std::optional<Workspace> workspace;
    const Arena arena = allocate_scratch([&](Arena& a) {
        factor = a.take(MemoryClass::workspace, dtype, {n, n});
        result = a.take(MemoryClass::workspace, dtype, {n, n});
        workspace.emplace(a);
    });
    // Numbers as in a run: a GPU that multiplies constants needs less power, and is faster than it will be.
    fill_uniform(factor, {.global_cols = n, .valid_rows = n, .valid_cols = n}, stream_key(0, "peak"), 1);
    const Matmul product{.a = factor, .b = factor, .c = result};
    matmul(product);
    const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    double best = 0;
    Stamps stamps;
    const double end = seconds_now() + 0.1;
    for (int runs = 0; runs < 3 || seconds_now() < end; ++runs) {
        stamps.stamp(0);
        matmul(product);
        stamps.stamp(1);
        best = std::max(best, flops / stamps.seconds(0, 1));
    }
    return best;
}

}  // namespace switchyard::kernels

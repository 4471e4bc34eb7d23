// The speed of products on this machine, measured by the back end's own points in time.
#include <algorithm>
#include <vector>

#include "core/arena.hpp"
#include "core/stamps.hpp"
#include "core/timer.hpp"
#include "kernels/matmul.hpp"
#include "kernels/transfer.hpp"

namespace switchyard::kernels {

double measure_peak_flops(DType dtype) {
    const std::int64_t n = peak_product_size(dtype);
    Tensor all;
    const Arena arena = allocate_scratch([&](Arena& a) {
        all = a.take(MemoryClass::workspace, dtype, {3, n, n});
    });
    // 0x3F is a small positive number in every format: 0.7470 (f32), 0.7461 (bf16), 4.8e-4 (f64).
    upload(std::vector<std::uint64_t>(all.bytes() / 8, 0x3F3F3F3F3F3F3F3Full).data(), all);
    const auto part = [&](std::int64_t i) { return all.rows(i, 1).reshape({n, n}); };
    const Matmul product{.a = part(0), .b = part(1), .c = part(2)};
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

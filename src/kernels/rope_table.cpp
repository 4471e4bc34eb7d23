// The table is computed on the host in f64 and uploaded, so every back end has the same bits.
#include <cmath>
#include <vector>

#include "core/error.hpp"
#include "kernels/rope.hpp"
#include "kernels/transfer.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
void fill_table(Tensor table, double theta, std::int64_t first_position) {
    const std::int64_t half = table.dim(2);
    std::vector<T> host(table.size());
    for (std::int64_t t = 0; t < table.dim(0); ++t) {
        T* row = host.data() + t * 2 * half;
        for (std::int64_t i = 0; i < half; ++i) {
            const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
            const double angle = static_cast<double>(first_position + t) * frequency;
            row[i] = static_cast<T>(std::cos(angle));
            row[half + i] = static_cast<T>(std::sin(angle));
        }
    }
    upload(host.data(), table);
}

}  // namespace

void rope_table(Tensor table, double theta, std::int64_t first_position) {
    internal_check(table.shape().rank() == 3 && table.dim(1) == 2, "rope table {}", table.shape());
    internal_check(table.dtype() == DType::f32 || table.dtype() == DType::f64, "rope table of {}",
                   name_of(table.dtype()));
    if (table.empty()) return;
    table.dtype() == DType::f64 ? fill_table<double>(table, theta, first_position)
                                : fill_table<float>(table, theta, first_position);
}

}  // namespace switchyard::kernels

// Values that a kernel gave beside those of a host loop in f64, and the operands of such checks. Operands are
// rounded to their type first, so that only the kernel's own error is left.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/arena.hpp"

namespace switchyard::selftest {

using Values = std::vector<double>;

/// An error of tolerance * max |expected| is allowed; 0: bit for bit.
struct Comparison {
    std::string what;
    Values got, expected;
    double tolerance = 0;
};
/// The largest error as a share of what is allowed. Infinite for a NaN, other sizes, or any error where none
/// is allowed.
double share_of_tolerance(const Comparison&);

/// k * sqrt(n) * eps for a sum of n terms in accumulate_type(stored), and k of the type's own eps where
/// results are rounded to less.
double tolerance(DType stored, double k, std::int64_t n = 1);
/// The number nearest to `value` in a type; bf16 through f32.
double rounded(DType, double value);

Values values_of(Tensor);
void set_values(Tensor, const Values&);

/// Memory of one check: a block for each tensor.
class Operands {
  public:
    /// Standard normal numbers times `scale`, keyed by `name`.
    Tensor normal(DType, Shape, std::string_view name, double scale = 1);
    Tensor integers(Shape, const std::vector<std::int32_t>&);
    Tensor zeros(DType, Shape);
    /// NaN in each element, so that what a kernel does not write shows.
    Tensor output(DType, Shape);
    Tensor scratch(std::size_t bytes);

  private:
    std::vector<Arena> blocks_;
};

}  // namespace switchyard::selftest

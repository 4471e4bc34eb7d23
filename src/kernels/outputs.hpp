// The end of a linear's output: its bias, and its distance from that of a teacher.
#pragma once

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// y (N, m) += bias, computed in accumulate_type of y and rounded once. Then, where there is a teacher: sum
/// += weight * the sum of squares of y - teacher, in f64 in an order that depends on the shape alone, and
/// teacher <- scale * (y - teacher), both of y as it is stored.
struct FinishedOutput {
    Tensor y;
    Tensor bias;     // (m) accumulate_type of y; empty: zeros
    Tensor teacher;  // as y, or empty
    double scale = 1, weight = 1;
    Tensor sum;  // (1) f64, or empty
};
void finish_output(const FinishedOutput&);

}  // namespace switchyard::kernels

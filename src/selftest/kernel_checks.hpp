// Small problems for kernels, beside host loops in f64 that follow the formulas. Sizes are odd, so that the
// ends of vectors and tiles are met.
#pragma once

#include <span>
#include <vector>

#include "selftest/comparison.hpp"

namespace switchyard::selftest {

struct KernelCheck {
    const char* name;
    std::vector<Comparison> (*run)(DType compute);
};

std::span<const KernelCheck> kernel_checks();

// The checks, by file.
std::vector<Comparison> check_matmul(DType);  // product_checks.cpp
std::vector<Comparison> check_merge(DType);
std::vector<Comparison> check_attention(DType);  // attention_check.cpp
std::vector<Comparison> check_rms_norm(DType);   // formula_checks.cpp
std::vector<Comparison> check_swiglu(DType);
std::vector<Comparison> check_rope(DType);
std::vector<Comparison> check_cross_entropy(DType);
std::vector<Comparison> check_adamw(DType);  // row_checks.cpp
std::vector<Comparison> check_rows(DType);
std::vector<Comparison> check_random(DType);

}  // namespace switchyard::selftest

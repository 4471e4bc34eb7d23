// A matrix product on the host for the emulated library: sums of bf16 and f32 in f32, of f64 in f64, rounded
// once.
#pragma once

#include <cstdint>

namespace emulation {

enum class Number { f32, bf16, f64 };

/// Element (i, j) is at i * row + j * column.
struct HostMatrix {
    void* data = nullptr;
    Number number = Number::f32;
    std::int64_t row = 1, column = 1;
};

/// d (m, n) = alpha a (m, k) b (k, n) + beta c; c is not read where beta is 0. With several `parts` the sum
/// over k is cut into as many; they are kept in `partial`, (parts, n, m), in the numbers of the sums or in
/// those of d.
struct HostProduct {
    HostMatrix a, b, c, d;
    std::int64_t m = 0, n = 0, k = 0, parts = 1;
    double alpha = 1, beta = 0;
    void* partial = nullptr;
    bool partial_as_result = false;
};

/// a and b have the same numbers; c and d have them too, or f32 where they are bf16.
void multiply(const HostProduct&);

}  // namespace emulation

// Gradients by central differences of fourth order, in f64; an error of step^4 leaves about eleven digits.
#pragma once

#include <functional>

#include "support/tensors.hpp"

namespace switchyard::test {

/// d loss / d x by x's elements, from four evaluations each (Abramowitz & Stegun 25.3.6); x is restored.
inline Values numerical_gradient(HostTensor& x, const std::function<double()>& loss, double step = 1e-3) {
    Values gradient;
    for (std::int64_t i = 0; i < x.size(); ++i) {
        const double value = x.at(i);
        const auto loss_at = [&](double shift) {
            x.set(i, value + shift * step);
            return loss();
        };
        const double near = loss_at(1) - loss_at(-1), far = loss_at(2) - loss_at(-2);
        gradient.push_back((8 * near - far) / (12 * step));
        x.set(i, value);
    }
    return gradient;
}

/// True if `gradient` equals the numerical gradient of `loss` to 1e-9 of the largest element. This is the
/// limit of differences with steps of 1e-3: eps * |loss| / step plus fifth derivatives of order one times
/// step^4.
inline ::testing::AssertionResult gradient_matches(HostTensor& x, const HostTensor& gradient,
                                                   const std::function<double()>& loss) {
    internal_check(x.dtype() == DType::f64 && gradient.dtype() == DType::f64, "gradient check outside f64");
    const Values expected = numerical_gradient(x, loss);
    return close(gradient, expected, 1e-9 / eps_of(DType::f64));
}

/// sum of weights * values: a loss whose gradient with respect to the values is `weights`.
inline double dot(const HostTensor& weights, const HostTensor& values) {
    double sum = 0;
    for (std::int64_t i = 0; i < values.size(); ++i) sum += weights.at(i) * values.at(i);
    return sum;
}

}  // namespace switchyard::test

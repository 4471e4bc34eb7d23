// Private to the CPU kernels: the constants of a row's update, and the update of moments that are codes.
#pragma once

#include <cmath>
#include <span>

#include "kernels/adamw.hpp"

namespace switchyard::kernels {

/// The constants of one row's update, rounded from f64.
template <class T>
struct Factors {
    T clip, beta1, one_minus_beta1, beta2, one_minus_beta2;
    T lr, decay, eps;
    T m_correction, v_correction;  // 1 / (1 - beta^step)
};

/// 1 / (1 - beta^step) of the first and the second moment.
struct Corrections {
    double m = 1, v = 1;
};
inline Corrections corrections(const AdamWSettings& s, std::int32_t step) {
    return {1 / (1 - std::pow(s.beta1, step)), 1 / (1 - std::pow(s.beta2, step))};
}

template <class T>
Factors<T> factors_of(const AdamWSettings& s, double clip, Corrections correction, bool frozen) {
    const auto as = [](double x) { return static_cast<T>(x); };
    return {as(frozen ? 0.0 : clip),
            as(s.beta1),
            as(1 - s.beta1),
            as(s.beta2),
            as(1 - s.beta2),
            as(s.lr),
            as(frozen ? 0.0 : s.weight_decay),
            as(s.eps),
            as(correction.m),
            as(correction.v)};
}

/// What adamw() and adam_direction() do with those parameters whose moments are codes, after their step
/// counters were advanced. They have been checked.
void update_coded(std::span<const AdamWRows* const>, double clip);

}  // namespace switchyard::kernels

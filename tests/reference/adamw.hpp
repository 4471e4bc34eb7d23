// AdamW for one number, as in Loshchilov & Hutter's algorithm 2.
#pragma once

#include <cmath>

namespace switchyard::reference {

struct AdamWNumber {
    double value = 0, m = 0, v = 0;
};
struct AdamWRates {
    double lr, beta1, beta2, eps, weight_decay;
};

/// `step` counts from 1.
inline void adamw(AdamWNumber& p, double gradient, int step, const AdamWRates& s) {
    p.m = s.beta1 * p.m + (1 - s.beta1) * gradient;
    p.v = s.beta2 * p.v + (1 - s.beta2) * gradient * gradient;
    const double m_hat = p.m / (1 - std::pow(s.beta1, step)), v_hat = p.v / (1 - std::pow(s.beta2, step));
    p.value -= s.lr * (m_hat / (std::sqrt(v_hat) + s.eps) + s.weight_decay * p.value);
}

}  // namespace switchyard::reference

// Sizes of an attention, and the checks of its arguments that all back ends make.
#pragma once

#include <cstdint>

#include "kernels/attention.hpp"

namespace switchyard::kernels::attention {

/// Batch, tokens, heads, key-value heads, head size.
struct Extents {
    std::int64_t b, t, h, k, d;
    constexpr std::int64_t group() const { return h / k; }
    bool operator==(const Extents&) const = default;
};

Extents extents_of(const Shape& q, const Shape& k);
/// These check the arguments of a pass.
Extents check_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch);
Extents check_backward(const AttentionBackward&);

}  // namespace switchyard::kernels::attention

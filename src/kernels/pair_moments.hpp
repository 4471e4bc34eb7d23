// Moments of gradients that are known by r coordinates (LoFT, arXiv 2505.21289): for each row of coordinates
// a first moment m (r) and, in place of the square of a whole gradient's element, a symmetric matrix P (r, r)
// of second moments, of which q' P q is that of the element with the coordinates' weights q. P is kept as its
// r (r + 1) / 2 pairs (a, b), a >= b, in the order (0, 0), (1, 0), (1, 1), (2, 0), ...
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

inline constexpr std::int64_t most_pair_rank = 32;
/// The number of pairs of r coordinates.
constexpr std::int64_t num_pairs(std::int64_t r) {
    return r * (r + 1) / 2;
}

/// The owned rows of one factor. The state is contiguous and in accumulate_type.
struct PairMoments {
    Tensor m;            // (R, r)
    Tensor v;            // (R, r (r + 1) / 2)
    Tensor step;         // (1) i32, incremented first
    RowPart gradient;    // R rows of r coordinates g of the gradient, accumulate_type
    Tensor map;          // (r, r) f64: old coordinates m, as a row, are m T in the basis of g
    Tensor corrections;  // (2) f64, overwritten: 1 / (1 - beta1^step), 1 / (1 - beta2^step)
    double beta1 = 0.9, beta2 = 0.999;
};

/// step += 1; m = b1 m T + (1-b1) c g; P = b2 T' P T + (1-b2) c^2 g' g, for each row; computed in f64 and
/// rounded once. r is at most 32. `clip` (2) f64 in back-end memory: {coefficient c, finite flag}; nothing
/// happens where the flag is 0.
void advance_pair_moments(std::span<const PairMoments>, Tensor clip);

/// pairs (L, r (r + 1) / 2) <- the products q_a q_b of each row q of `rows` (L, r), twice where a > b, so
/// that q' P q is the scalar product with P's pairs; both f32 or f64.
void pair_products(Tensor rows, Tensor pairs);

/// first <- first c1 / (sqrt(max(second, 0) c2) + eps), element by element; corrections (2) f64 = {c1, c2};
/// first and second of one shape and type, f32 or f64.
void pair_direction(Tensor first, Tensor second, Tensor corrections, double eps);

}  // namespace switchyard::kernels

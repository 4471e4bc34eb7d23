// Which singular vectors are a basis: order, signs, and what serves where a gradient has too few.
#pragma once

#include <cstdint>
#include <span>

namespace switchyard {

/// gram: n rows of n numbers, `stride` apart, = G' G; its content is lost. basis (n, r), row by row, holds an
/// orthonormal basis and is replaced by the eigenvectors of the r largest eigenvalues: the leading right
/// singular vectors of G, in descending order and each with its largest element (the first of these)
/// positive. Where G has only k < r singular values beyond the rounding of the largest, the last r - k
/// columns are the old basis's, as far as they are orthogonal to the k and to those before. If no number of G
/// counts, or some number is not finite, the basis stays as it is. Returns how many columns are the old
/// basis's.
std::int64_t leading_basis(std::span<double> gram, std::int64_t stride, std::int64_t n, std::int64_t r,
                           std::span<double> basis);

}  // namespace switchyard

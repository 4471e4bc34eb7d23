// Small dense algebra on the host, in f64.
#pragma once

#include <cstdint>
#include <span>

namespace switchyard {

/// gram (r, r), row by row, = S' S of a tall S, is replaced by the upper triangular T with positive diagonal
/// for which S T has orthonormal columns: what the Gram-Schmidt process gives, by S' S = R' R and T = 1 / R
/// (Cholesky QR). Columns are scaled to length 1 first. Returns false, with gram undefined, if some column
/// has less than 1e-5 of its length outside the columns before it, or if a number is not finite.
bool orthonormalising_map(std::span<double> gram, std::int64_t low_rank);

}  // namespace switchyard

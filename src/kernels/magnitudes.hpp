// Magnitudes of the elements of many tensors: the one of a given rank in each, exactly and without sorting,
// and dropping what does not exceed it. The bits of |x| are ordered like magnitudes, so the one of rank k is
// found byte by byte, the highest first (radix select): a histogram of the next byte for each tensor, which
// is summed over the ranks that share it, then the choice of the byte. The host reads nothing.
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// The number of values of a byte.
inline constexpr std::int64_t magnitude_bins = 256;
/// The number of bytes, and so of histograms, that determine an element of f32 or f64.
int magnitude_bytes(DType);

/// counts (items, 256) f64 <- for each rectangle the number of its elements, by byte `byte` of |x| (0: the
/// highest), among those whose higher bytes are found(item, 0). Rectangles are all f32 or all f64. found
/// (items, 2) i64: the bytes found so far, as one number, and the rank k (0: the smallest) among the elements
/// that have them.
void magnitude_histogram(std::span<const RowPart>, int byte, Tensor found, Tensor counts);

/// found <- with the byte appended in which the element of rank k lies, and its rank among the elements with
/// these bytes. counts (items, 256) f64 as above, over all ranks. An item of no elements gets the bytes 255.
void select_byte(Tensor counts, Tensor found);

/// Elements of `values` become zero where those at the same places in `keys` have a magnitude whose bits do
/// not exceed the item's limit. Both are f32 or f64; they may be the same rectangle.
struct Dropped {
    RowPart values, keys;
};
/// limits (items, 2) i64: the bits of the largest magnitude that is dropped, and a number without meaning
/// here.
void drop_up_to(std::span<const Dropped>, Tensor limits);

}  // namespace switchyard::kernels

// AdamW (Loshchilov & Hutter 2019) on the rows that this rank owns, of many parameters in one call, with a
// step counter per row or one for all rows of a parameter.
#pragma once

#include <span>

#include "kernels/rows.hpp"

namespace switchyard::kernels {

struct AdamWSettings {
    double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

/// The owned rows of one parameter. The state is contiguous and in accumulate_type; `gradient` and `value`
/// are addressed row by row through `rows`. Moments may be codes of 8 bits (moment_codes.hpp).
struct AdamWRows {
    Tensor master;  // (R, W), updated in place; empty for adam_direction()
    Tensor m, v;    // (R, W); u8 if they are codes
    Tensor step;    // (R) i32, or (1) for all rows; incremented first, also for frozen rows
    Tensor frozen;  // (R) i32, non-zero: the gradient of this row is taken as zero and it does not decay; or
                    // empty
    Tensor gradient;  // (any, gradient stride) the local gradient tensor, accumulate_type
    Tensor value;  // like gradient, in the compute type; receives the rounded master, whose memory it may be
    Rows rows;     // R rows of `gradient` and `value`, in the order of the state
    std::int64_t column = 0;  // first column of the W owned ones inside gradient and value
    AdamWSettings settings;
    Tensor m_scale{}, v_scale{};    // (R, blocks), of codes; else empty
    std::int64_t whole_column = 0;  // where the W columns begin in the whole row: blocks are counted there
    /// (R, 4), or empty: the first and the last block go on at other ranks. Then it gets their largest |m|
    /// and v here (of the first, then of the last), and code_shared_blocks() must follow adamw().
    Tensor end_maxima{};
    bool coded() const { return m.dtype() == DType::u8; }
};

/// step += 1; m = b1 m + (1-b1) c g; v = b2 v + (1-b2) (c g)^2; p -= lr (wd p + m / (1-b1^step) / (sqrt(v /
/// (1-b2^step)) + eps)). `clip` (2) f64 in back-end memory: {coefficient c, finite flag}; nothing happens
/// where the flag is 0. The step is made with m and v as they are before they become codes, and a block's
/// scale is its largest |m| or v.
void adamw(std::span<const AdamWRows>, Tensor clip);

/// Rows with blocks that other ranks share, and the index of their end_maxima among those of a rank.
struct SharedBlocks {
    AdamWRows rows;
    std::int64_t first = 0;
};
/// Codes and scales of the first and the last block of each row, which adamw() leaves as they were; gradients
/// and settings are those that it had. maxima (P, n): the end_maxima of all ranks that share the rows; rank p
/// has the columns p W ... p W + W - 1 of the whole. Nothing happens where the finite flag is 0.
void code_shared_blocks(std::span<const SharedBlocks>, Tensor maxima, Tensor clip);

/// The same step counters and moments without a master: value = m / (1-b1^step) / (sqrt(v / (1-b2^step)) +
/// eps), rounded once. For methods that apply the direction themselves, so that `lr` and `weight_decay` have
/// no effect. value keeps what it held where the finite flag is 0. Blocks of codes must not be shared.
void adam_direction(std::span<const AdamWRows>, Tensor clip);

/// clip (2) <- {c, finite} from the squared norm (1) f64 of all gradients. c = limit / norm if limit > 0 and
/// the norm exceeds it, else 1. finite = 0 if the norm or `loss` (1) f64, which may be empty, is NaN or
/// infinite.
void clip_coefficient(Tensor squared_norm, Tensor loss, double limit, Tensor clip);

}  // namespace switchyard::kernels

// Tensors whose elements are known from their index, cut into parts in all the ways that ranks hold them; and
// a second implementation of the dataset checksum from docs/checkpoints.md.
#pragma once

#include <algorithm>

#include "core/shard.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {

/// Sets element `at` of the tensor to the value that belongs at flat index `i`: any bits for integers, normal
/// numbers for floats, with a few that formats often lose.
inline void put(HostTensor& t, std::int64_t at, std::int64_t i) {
    const auto word = mix64(static_cast<std::uint64_t>(i) + 1);
    static const double special[] = {0.0, -0.0, INFINITY, -INFINITY, 1e-40, -3e38, 1.0};
    if (t.dtype() == DType::i64 || t.dtype() == DType::i32 || t.dtype() == DType::i16 ||
        t.dtype() == DType::u8)
        t.set_bits(at, word);
    else
        t.set(at, i % 11 == 3 ? special[i / 11 % 7]
                              : static_cast<double>(static_cast<std::int64_t>(word)) * 1e-18);
}

/// The whole tensor.
inline HostTensor whole_tensor(DType dtype, Shape shape) {
    HostTensor t(dtype, shape);
    for (std::int64_t i = 0; i < shape.size(); ++i) put(t, i, i);
    return t;
}

/// The local tensor of a shard: the shard's values, and -77 in `padding` further rows and columns.
inline HostTensor local_tensor(DType dtype, const Shard& shard, std::int64_t padding, bool filled) {
    const bool matrix = shard.global.rank() == 2;
    const std::int64_t cols = matrix ? shard.cols + padding : 1;
    HostTensor t(dtype, matrix ? Shape{shard.rows + padding, cols} : Shape{shard.rows + padding});
    for (std::int64_t i = 0; i < t.size(); ++i) t.set(i, -77);
    for (std::int64_t row = 0; filled && row < shard.rows; ++row)
        for (std::int64_t col = 0; col < shard.cols; ++col)
            put(t, row * cols + col, (shard.row0 + row) * shard.global_cols() + shard.col0 + col);
    return t;
}

inline bool same_bits(const HostTensor& a, const HostTensor& b) {
    return a.num_bytes() == b.num_bytes() && std::equal(a.bytes(), a.bytes() + a.num_bytes(), b.bytes());
}

/// The checksum as docs/checkpoints.md defines it; bf16 counts as it is stored, in f32.
inline std::uint64_t documented_checksum(const HostTensor& whole) {
    std::uint64_t sum = 0;
    for (std::int64_t i = 0; i < whole.size(); ++i) {
        std::uint64_t bits = whole.bits(i);
        if (whole.dtype() == DType::bf16) bits <<= 16;
        std::uint64_t x = static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15u + bits;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        sum += x ^ (x >> 31);
    }
    return sum;
}

/// How a tensor is distributed over ranks.
enum class Cut { rows, columns, grid, last_rank, replicas, pairs_of_replicas };
inline constexpr Cut all_cuts[] = {Cut::rows,      Cut::columns,  Cut::grid,
                                   Cut::last_rank, Cut::replicas, Cut::pairs_of_replicas};

/// [begin, count) of part `index` of `parts` blocks of ceil(size / parts).
inline std::pair<std::int64_t, std::int64_t> block_of(std::int64_t size, int parts, int index) {
    const std::int64_t block = (size + parts - 1) / parts, begin = std::min(size, index * block);
    return {begin, std::min(size, begin + block) - begin};
}

inline Shard cut(Shape global, Cut how, int rank, int ranks) {
    Shard s{"x", global, 0, 0, global[0], global.rank() == 2 ? global[1] : 1, 0};
    const auto split_rows = [&](int parts, int index) {
        std::tie(s.row0, s.rows) = block_of(s.rows, parts, index);
    };
    const auto split_cols = [&](int parts, int index) {
        std::tie(s.col0, s.cols) = block_of(s.cols, parts, index);
    };
    const int pairs = (ranks + 1) / 2;
    switch (how) {
        case Cut::rows:
            split_rows(ranks, rank);
            break;
        case Cut::columns:
            split_cols(ranks, rank);
            break;
        case Cut::grid:  // rows over pairs of ranks, columns within a pair; an odd last rank has whole rows
            split_rows(pairs, rank / 2);
            if (ranks % 2 == 0 || rank < ranks - 1) split_cols(2, rank % 2);
            break;
        case Cut::last_rank:
            if (rank < ranks - 1) s.rows = 0;
            break;
        case Cut::replicas:
            s.replica = rank;
            break;
        case Cut::pairs_of_replicas:
            split_rows(pairs, rank / 2);
            s.replica = rank % 2;
            break;
    }
    return s;
}

}  // namespace switchyard::test

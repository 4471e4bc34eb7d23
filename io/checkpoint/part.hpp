// Part: the values of a dataset that one rank holds or wants, some of its rows and some of its columns, and
// where they lie in the file. Private to io/.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/shard.hpp"

namespace switchyard {

/// Consecutive rows or columns.
struct Run {
    std::int64_t begin = 0, count = 0;
    std::int64_t end() const { return begin + count; }
    bool operator==(const Run&) const = default;
};

/// The runs of consecutive numbers in an ascending list, moved by `offset`.
std::vector<Run> runs_of(const std::vector<std::int32_t>& ascending, std::int64_t offset);

/// The values in `rows` and `cols`, both ascending and without overlap. A vector is a matrix of one column.
/// Packed, they lie row after row without gaps.
struct Part {
    std::vector<Run> rows, cols;

    std::int64_t num_rows() const;
    std::int64_t num_cols() const;
    bool empty() const { return num_rows() == 0 || num_cols() == 0; }
    /// Its rows [first, first + count), counted among its own.
    Part some_rows(std::int64_t first, std::int64_t count) const;
    /// How many of its rows are before this row of the dataset.
    std::int64_t rows_before(std::int64_t row) const;
};

inline Part part_of(const Shard& shard) {
    return {{{shard.row0, shard.rows}}, {{shard.col0, shard.cols}}};
}

/// Bytes of a file.
struct ByteRange {
    std::uint64_t begin = 0, end = 0;
    std::uint64_t size() const { return end > begin ? end - begin : 0; }
    bool contains(const ByteRange& x) const { return begin <= x.begin && x.end <= end; }
};

inline ByteRange common(ByteRange a, ByteRange b) {
    return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

/// Where a dataset lies in the file, row after row.
struct Place {
    std::uint64_t offset = 0;
    std::int64_t rows = 0, cols = 0;
    std::size_t element_bytes = 0;

    std::uint64_t row_bytes() const { return static_cast<std::uint64_t>(cols) * element_bytes; }
    ByteRange bytes() const { return {offset, offset + static_cast<std::uint64_t>(rows) * row_bytes()}; }
    ByteRange bytes_of(Run rows) const {
        return {offset + static_cast<std::uint64_t>(rows.begin) * row_bytes(),
                offset + static_cast<std::uint64_t>(rows.end()) * row_bytes()};
    }
    /// Rows with a byte in `range`.
    Run rows_touching(ByteRange range) const;
    /// Rows whose first byte lies in `range`.
    Run rows_beginning_in(ByteRange range) const;
};

inline Place place_of(std::uint64_t offset, const Shape& shape, DType stored) {
    return {offset, shape[0], shape.rank() == 2 ? shape[1] : 1, size_of(stored)};
}

/// The first byte of the file that holds a value, and the byte after the last one; 0 where there is none.
std::uint64_t begin_of(const std::vector<Place>&);
std::uint64_t end_of(const std::vector<Place>&);

/// Calls work(byte in the file, byte among the part's packed values, number of bytes) for the longest runs of
/// the part within `range`, in the order of the file.
template <class Work>
void for_runs(const Part& part, const Place& place, ByteRange range, Work work) {
    const std::uint64_t row_bytes = place.row_bytes(), packed_row = part.num_cols() * place.element_bytes;
    const Run touching = place.rows_touching(range);
    std::uint64_t packed = 0;  // of the run's first row
    const auto piece = [&](std::uint64_t at, std::uint64_t from, std::uint64_t bytes) {
        const ByteRange inside = common({at, at + bytes}, range);
        if (inside.size() > 0) work(inside.begin, from + (inside.begin - at), inside.size());
    };
    for (const Run& run : part.rows) {
        const std::int64_t begin = std::max(run.begin, touching.begin),
                           end = std::min(run.end(), touching.end());
        std::uint64_t from =
            packed + static_cast<std::uint64_t>(std::max(begin - run.begin, std::int64_t{0})) * packed_row;
        packed += static_cast<std::uint64_t>(run.count) * packed_row;
        if (begin >= end) continue;
        const std::uint64_t at = place.offset + static_cast<std::uint64_t>(begin) * row_bytes;
        if (packed_row == row_bytes) {
            piece(at, from, static_cast<std::uint64_t>(end - begin) * row_bytes);
            continue;
        }
        for (std::int64_t row = begin; row < end; ++row) {
            const std::uint64_t row_at = at + static_cast<std::uint64_t>(row - begin) * row_bytes;
            for (const Run& cols : part.cols) {
                const std::uint64_t bytes = static_cast<std::uint64_t>(cols.count) * place.element_bytes;
                piece(row_at + static_cast<std::uint64_t>(cols.begin) * place.element_bytes, from, bytes);
                from += bytes;
            }
        }
    }
}

/// Packs rows [first, first + count) of a part, counted among its own, as the file stores them.
using PartSource = std::function<void(std::int64_t first, std::int64_t count, std::byte* packed)>;
/// Takes such packed rows; returns how many values did not fit exactly.
using PartSink = std::function<std::int64_t(std::int64_t first, std::int64_t count, const std::byte* packed)>;

/// Ranks that hold the same part are numbered 0 ... replicas - 1.
struct HeldPart {
    std::size_t dataset = 0;
    Part part;
    int replica = 0, replicas = 1;
    PartSource source;
};
struct WantedPart {
    std::size_t dataset = 0;
    Part part;
    bool shared = false;  // other ranks want the same values
    PartSink sink;
};

/// Sorts parts by the order of their datasets in the file.
template <class AnyPart>
void sort_by_place(std::vector<AnyPart>& parts, const std::vector<Place>& places) {
    std::sort(parts.begin(), parts.end(), [&](const AnyPart& a, const AnyPart& b) {
        return places[a.dataset].offset < places[b.dataset].offset;
    });
}

}  // namespace switchyard

// Rows that follow each other in a tensor are one rectangle of the transfer.
#include "io/checkpoint/row_transfer.hpp"

#include <algorithm>
#include <vector>

#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

using kernels::RowPart;

/// Whether `next` is the row after the last of `part`.
bool follows(const RowPart& part, const RowPart& next) {
    return part.matrix.raw() == next.matrix.raw() && part.matrix.dtype() == next.matrix.dtype() &&
           part.matrix.shape() == next.matrix.shape() && part.column == next.column &&
           part.width == next.width && part.rows.first + part.rows.count == next.rows.first;
}

std::vector<RowPart> parts_of(const RowPlace& place, std::span<const std::int32_t> rows) {
    std::vector<RowPart> parts;
    for (const std::int32_t row : rows) {
        const RowPart next = place(row);
        if (!parts.empty() && follows(parts.back(), next))
            ++parts.back().rows.count;
        else
            parts.push_back(next);
    }
    return parts;
}

}  // namespace

void get_rows(const RowPlace& place, std::span<const std::int32_t> rows, DType dtype, std::byte* host) {
    kernels::download_rows(parts_of(place, rows), dtype, host);
}

void set_rows(const RowPlace& place, std::span<const std::int32_t> rows, DType dtype, const std::byte* host) {
    kernels::upload_rows(host, dtype, parts_of(place, rows));
}

}  // namespace switchyard

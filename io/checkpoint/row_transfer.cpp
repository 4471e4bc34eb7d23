// Rows that follow each other in a tensor are one item of the kernel call that gathers them.
#include "io/checkpoint/row_transfer.hpp"

#include <algorithm>
#include <vector>

#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

using kernels::RowPart;
using kernels::Rows;

constexpr std::int64_t staging_bytes = 8 << 20;

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

/// All rows as one tensor, if they follow each other and have type `dtype`; else an empty tensor.
Tensor one_run(const std::vector<RowPart>& parts, DType dtype) {
    if (parts.size() != 1 || parts[0].matrix.dtype() != dtype) return {};
    const RowPart& part = parts[0];
    const std::int64_t stride = part.matrix.size() / part.matrix.dim(0);
    if (part.rows.count > 1 && part.width != stride) return {};
    return part.matrix.reshape({part.matrix.size()})
        .rows(part.rows.first * stride + part.column, part.rows.count * part.width);
}

/// Calls work(some of the rows, where they lie in host memory) for as many as the staging tensor holds.
template <class Work>
void in_batches(std::span<const std::int32_t> rows, std::int64_t cols, DType dtype, Work work) {
    const std::int64_t row_bytes = cols * static_cast<std::int64_t>(size_of(dtype));
    if (row_bytes == 0) return;
    const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, staging_bytes / row_bytes));
    for (std::size_t begin = 0; begin < rows.size(); begin += most)
        work(rows.subspan(begin, std::min(most, rows.size() - begin)),
             begin * static_cast<std::size_t>(row_bytes));
}

}  // namespace

Tensor RowTransfer::staging(std::int64_t rows, std::int64_t cols, DType dtype) {
    const std::int64_t size = rows * cols * static_cast<std::int64_t>(size_of(dtype)) / 2;
    if (bytes_.size() < size) {
        memory_ = {};
        memory_ = allocate_scratch(
            [&](Arena& arena) { bytes_ = arena.take(MemoryClass::workspace, DType::i16, {size}); });
    }
    return bytes_.view(dtype, {rows, cols});
}

void RowTransfer::get(const RowPlace& place, std::span<const std::int32_t> rows, std::int64_t cols,
                      DType dtype, std::byte* host) {
    in_batches(rows, cols, dtype, [&](std::span<const std::int32_t> some, std::size_t offset) {
        const std::vector<RowPart> parts = parts_of(place, some);
        if (const Tensor run = one_run(parts, dtype); !run.empty())
            return kernels::download(run, host + offset);
        const Tensor staged = staging(static_cast<std::int64_t>(some.size()), cols, dtype);
        kernels::RowBatch batch;
        std::int64_t row = 0;
        for (const RowPart& part : parts) {
            batch.copy(part, {staged, Rows::range(row, part.rows.count), 0, cols});
            row += part.rows.count;
        }
        batch.run();
        kernels::download(staged, host + offset);
    });
}

void RowTransfer::set(const RowPlace& place, std::span<const std::int32_t> rows, std::int64_t cols,
                      DType dtype, const std::byte* host) {
    in_batches(rows, cols, dtype, [&](std::span<const std::int32_t> some, std::size_t offset) {
        const std::vector<RowPart> parts = parts_of(place, some);
        if (const Tensor run = one_run(parts, dtype); !run.empty())
            return kernels::upload(host + offset, run);
        const Tensor staged = staging(static_cast<std::int64_t>(some.size()), cols, dtype);
        kernels::upload(host + offset, staged);
        kernels::RowBatch batch;
        std::int64_t row = 0;
        for (const RowPart& part : parts) {
            batch.copy({staged, Rows::range(row, part.rows.count), 0, cols}, part);
            row += part.rows.count;
        }
        batch.run();
    });
}

}  // namespace switchyard

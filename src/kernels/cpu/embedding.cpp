// In the backward pass each thread owns a range of columns and walks all tokens in order, so that every table
// row is summed in token order with any number of threads.
#include "kernels/embedding.hpp"

#include <cstring>

#include "core/calls.hpp"
#include "core/shared_loop.hpp"
#include "kernels/checks/model.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

/// Row of the local table, or -1 if another rank holds it.
std::int64_t local_row(std::int32_t token, VocabRange range) {
    const std::int64_t row = token - range.begin;
    return row >= 0 && row < range.count ? row : -1;
}

template <class T>
void add_row(const T* from, Wide<T>* to, std::int64_t n) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) to[j] += load(from[j]);
}

constexpr std::int64_t column_block = 32;

}  // namespace

void embedding_forward(Tensor tokens, Tensor table, VocabRange range, Tensor x) {
    count_kernel(__func__);
    check_embedding(tokens, table, range, x);
    check_dtype("embedded tokens", x, table.dtype());
    if (x.empty()) return;
    const auto row_bytes = static_cast<std::int64_t>(size_of(table.dtype())) * table.dim(1);
    for_rows(tokens.size(), table.dim(1), [=](std::int64_t i) {
        const std::int64_t row = local_row(tokens.data<std::int32_t>()[i], range);
        char* to = x.data<char>() + i * row_bytes;
        if (row >= 0)
            std::memcpy(to, table.data<char>() + row * row_bytes, static_cast<std::size_t>(row_bytes));
        else
            std::memset(to, 0, static_cast<std::size_t>(row_bytes));
    });
}

void embedding_backward(Tensor tokens, Tensor d_x, VocabRange range, Tensor d_table) {
    count_kernel(__func__);
    check_embedding(tokens, d_table, range, d_x);
    check_dtype("gradient of a table", d_table, accumulate_type(d_x.dtype()));
    if (d_x.empty() || d_table.empty()) return;
    const std::int64_t count = tokens.size(), width = d_x.dim(1);
    const std::int64_t blocks = (width + column_block - 1) / column_block;
    dispatch(d_x.dtype(), [&]<class T>() {
        const std::int64_t parts = loop_threads(d_x.size() > parallel_elements);
        for_shared(parts, true, [&](std::int64_t part) {
            // Each thread takes consecutive blocks of columns, so that it walks rows in pieces as long as
            // possible.
            const std::int64_t begin = std::min(width, blocks * part / parts * column_block);
            const std::int64_t end = std::min(width, blocks * (part + 1) / parts * column_block);
            for (std::int64_t i = 0; i < count && begin < end; ++i) {
                const std::int64_t row = local_row(tokens.data<std::int32_t>()[i], range);
                if (row >= 0)
                    add_row(d_x.data<T>() + i * width + begin, d_table.data<Wide<T>>() + row * width + begin,
                            end - begin);
            }
        });
    });
}

}  // namespace switchyard::kernels

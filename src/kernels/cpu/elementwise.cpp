// Every element is read once.
#include "kernels/elementwise.hpp"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <vector>

#include "core/calls.hpp"
#include "core/shared_loop.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {
namespace {

template <class T>
void fill_block(T* to, std::int64_t n, T value) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) to[i] = value;
}

template <class From, class To>
void add_block(const From* from, To* to, std::int64_t n, double alpha) {
    using Sum = std::conditional_t<std::is_same_v<From, double>, double, Wide<To>>;
    const Sum factor = static_cast<Sum>(alpha);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
        to[i] =
            convert<To>(multiply_add(factor, static_cast<Sum>(load(from[i])), static_cast<Sum>(load(to[i]))));
}

constexpr std::int64_t tile = 32;

/// Goes through a buffer in cache, so that both sides are read and written in whole cache lines.
template <class From, class To>
void transpose_tile(const From* from, std::int64_t from_stride, To* to, std::int64_t to_stride,
                    std::int64_t rows, std::int64_t cols) {
    To buffer[tile * (tile + 1)];
    for (std::int64_t i = 0; i < rows; ++i) copy_block(from + i * from_stride, buffer + i * (tile + 1), cols);
    for (std::int64_t j = 0; j < cols; ++j)
        for (std::int64_t i = 0; i < rows; ++i) to[j * to_stride + i] = buffer[i * (tile + 1) + j];
}

void copy_bytes(const char* from, char* to, std::int64_t n) {
    for_blocks(
        n, [=](std::int64_t begin, std::int64_t end) { copy_block(from + begin, to + begin, end - begin); });
}

constexpr std::int64_t piece_bytes = 1 << 18;

/// Zeroes n bytes. Many bytes are written past the caches, which would otherwise read their lines first.
void clear_bytes(char* to, std::int64_t n) {
#ifdef __SSE2__
    constexpr std::int64_t line = 64;
    if (n == piece_bytes && reinterpret_cast<std::uintptr_t>(to) % line == 0) {
        const std::int64_t whole = n / line * line;
        for (std::int64_t i = 0; i < whole; i += sizeof(__m128i))
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_setzero_si128());
        _mm_sfence();
        to += whole, n -= whole;
    }
#endif
    std::memset(to, 0, static_cast<std::size_t>(n));
}

}  // namespace

void zero(Tensor x) {
    zero({&x, 1});
}

void zero(std::span<const Tensor> tensors) {
    count_kernel(__func__);
    std::vector<std::int64_t> first_piece{0};
    for (const Tensor& x : tensors)
        first_piece.push_back(first_piece.back() +
                              (static_cast<std::int64_t>(x.empty() ? 0 : x.bytes()) + piece_bytes - 1) /
                                  piece_bytes);
    const std::int64_t pieces = first_piece.back();
    for_shared(pieces, true, [&](std::int64_t i) {
        const auto tensor =
            std::upper_bound(first_piece.begin(), first_piece.end(), i) - first_piece.begin() - 1;
        const Tensor& x = tensors[static_cast<std::size_t>(tensor)];
        const std::int64_t begin = (i - first_piece[static_cast<std::size_t>(tensor)]) * piece_bytes;
        clear_bytes(x.data<char>() + begin,
                    std::min(piece_bytes, static_cast<std::int64_t>(x.bytes()) - begin));
    });
}

void fill(Tensor x, double value) {
    count_kernel(__func__);
    if (x.empty()) return;
    dispatch(x.dtype(), [&]<class T>() {
        T* to = x.data<T>();
        const T rounded = convert<T>(value);
        for_blocks(x.size(), [=](std::int64_t begin, std::int64_t end) {
            fill_block(to + begin, end - begin, rounded);
        });
    });
}

void copy(Tensor from, Tensor to) {
    count_kernel(__func__);
    check_shape("destination of a copy", to, from.shape());
    if (from.empty()) return;
    if (from.dtype() == to.dtype()) return copy_bytes(from.data<char>(), to.data<char>(), from.bytes());
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            const From* source = from.data<From>();
            To* target = to.data<To>();
            for_blocks(from.size(), [=](std::int64_t begin, std::int64_t end) {
                copy_block(source + begin, target + begin, end - begin);
            });
        });
    });
}

void add(Tensor from, Tensor to, double alpha) {
    count_kernel(__func__);
    check_shape("destination of a sum", to, from.shape());
    if (from.empty()) return;
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            const From* source = from.data<From>();
            To* target = to.data<To>();
            for_blocks(from.size(), [=](std::int64_t begin, std::int64_t end) {
                add_block(source + begin, target + begin, end - begin, alpha);
            });
        });
    });
}

void transpose(Tensor from, Tensor to) {
    count_kernel(__func__);
    check_matrix("transposed tensor", from);
    const std::int64_t rows = from.dim(0), cols = from.dim(1);
    check_shape("transpose", to, {cols, rows});
    if (from.empty()) return;
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            const From* source = from.data<From>();
            To* target = to.data<To>();
            const std::int64_t strips = (cols + tile - 1) / tile;
            // One unit is a strip of `tile` columns of `from`: whole rows of `to`.
            for_rows(strips, rows * tile, [=](std::int64_t strip) {
                const std::int64_t col = strip * tile, width = std::min(tile, cols - col);
                for (std::int64_t row = 0; row < rows; row += tile)
                    transpose_tile(source + row * cols + col, cols, target + col * rows + row, rows,
                                   std::min(tile, rows - row), width);
            });
        });
    });
}

}  // namespace switchyard::kernels

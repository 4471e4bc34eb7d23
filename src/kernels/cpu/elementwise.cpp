// Every element is read once. Sums are taken over blocks of fixed length and the blocks added in order, so
// that they do not depend on the number of threads.
#include "kernels/elementwise.hpp"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <limits>
#include <vector>

#include "core/call_counts.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/vector_math.hpp"

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

template <class T>
double square_block(const T* x, std::int64_t n) {
    return sum_over<double>(
        n,
        [=](std::int64_t i, double sum) {
            const double value = load(x[i]);
            return multiply_add(value, value, sum);
        },
        x);
}

/// Bit pattern of |x|, bf16 as f32. As integers these order like magnitudes, infinity above all numbers, NaN
/// above infinity.
template <class T>
auto magnitude_bits(T x) {
    using Bits = std::conditional_t<std::is_same_v<T, double>, std::int64_t, std::int32_t>;
    return static_cast<Bits>(std::bit_cast<Bits>(load(x)) & std::numeric_limits<Bits>::max());
}

template <class T>
auto max_magnitude(const T* x, std::int64_t n) {
    decltype(magnitude_bits(T{})) largest = 0;
#pragma omp simd reduction(max : largest)
    for (std::int64_t i = 0; i < n; ++i) {
        const auto bits = magnitude_bits(x[i]);
        largest = bits > largest ? bits : largest;
    }
    return std::bit_cast<Wide<T>>(largest);
}

constexpr std::int64_t tile = 32;

/// Through a buffer in cache, so that both sides are read and written in whole lines.
template <class From, class To>
void transpose_tile(const From* from, std::int64_t from_stride, To* to, std::int64_t to_stride,
                    std::int64_t rows, std::int64_t cols) {
    To buffer[tile * (tile + 1)];
    for (std::int64_t i = 0; i < rows; ++i) copy_block(from + i * from_stride, buffer + i * (tile + 1), cols);
    for (std::int64_t j = 0; j < cols; ++j)
        for (std::int64_t i = 0; i < rows; ++i) to[j * to_stride + i] = buffer[i * (tile + 1) + j];
}

/// to (n) <- sum of its parts, part p at parts + p stride, part `own` in `to`; in blocks that stay in cache.
template <class From, class To>
void sum_parts_block(const From* parts, std::int64_t num_parts, std::int64_t stride, std::int64_t own, To* to,
                     std::int64_t n) {
    Wide<To> sum[block_size];
    for (std::int64_t p = 0; p < num_parts; ++p) {
        const From* part = parts + p * stride;
        if (p == own) {
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i)
                sum[i] = (p == 0 ? 0 : sum[i]) + static_cast<Wide<To>>(load(convert<From>(load(to[i]))));
        } else {
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i)
                sum[i] = (p == 0 ? 0 : sum[i]) + static_cast<Wide<To>>(load(part[i]));
        }
    }
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) to[i] = convert<To>(sum[i]);
}

void copy_bytes(const char* from, char* to, std::int64_t n) {
    for_blocks(
        n, [=](std::int64_t begin, std::int64_t end) { copy_block(from + begin, to + begin, end - begin); });
}

constexpr std::int64_t piece_bytes = 1 << 18;

/// Zeroes n bytes; past the caches if they are many, as their lines are read first otherwise.
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

double in_order(const std::vector<double>& parts) {
    double sum = 0;
    for (double part : parts) sum += part;
    return sum;
}

void check_rectangle(Tensor tensor, const std::int32_t* rows, std::int64_t num_rows, std::int64_t column,
                     std::int64_t width) {
    internal_check(tensor.shape().rank() == 2, "rectangle of a tensor {}", tensor.shape());
    internal_check(column >= 0 && width >= 0 && column + width <= tensor.dim(1),
                   "columns [{}, {}) of a tensor {}", column, column + width, tensor.shape());
    for (std::int64_t i = 0; i < num_rows; ++i)
        internal_check(rows[i] >= 0 && rows[i] < tensor.dim(0), "row {} of a tensor {}", rows[i],
                       tensor.shape());
}

}  // namespace

void zero(Tensor x) {
    count_kernel(__func__);
    if (x.empty()) return;
    char* to = x.data<char>();
    const auto bytes = static_cast<std::int64_t>(x.bytes()), pieces = (bytes + piece_bytes - 1) / piece_bytes;
#pragma omp parallel for schedule(static) if (pieces > 1)
    for (std::int64_t i = 0; i < pieces; ++i)
        clear_bytes(to + i * piece_bytes, std::min(piece_bytes, bytes - i * piece_bytes));
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
    internal_check(from.shape().rank() == 2, "transpose of a tensor {}", from.shape());
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

double squared_norm(Tensor x) {
    count_kernel(__func__);
    count_call(Call::host_read);
    if (x.empty()) return 0;
    std::vector<double> parts(static_cast<std::size_t>(num_blocks(x.size())));
    dispatch(x.dtype(), [&]<class T>() {
        const T* from = x.data<T>();
        for_blocks(x.size(), [&parts, from](std::int64_t begin, std::int64_t end) {
            parts[static_cast<std::size_t>(begin / block_size)] = square_block(from + begin, end - begin);
        });
    });
    return in_order(parts);
}

double squared_norm_rows(Tensor x, Tensor rows, std::int64_t column, std::int64_t width) {
    count_kernel(__func__);
    count_call(Call::host_read);
    if (rows.empty() || width == 0) return 0;
    check_dtype("list of rows", rows, DType::i32);
    const auto* list = rows.data<std::int32_t>();
    check_rectangle(x, list, rows.size(), column, width);
    const std::int64_t per_row = num_blocks(width), stride = x.dim(1);
    std::vector<double> parts(static_cast<std::size_t>(rows.size() * per_row));
    dispatch(x.dtype(), [&]<class T>() {
        const T* from = x.data<T>() + column;
        for_row_blocks(
            rows.size(), width,
            [&parts, from, list, stride, per_row](std::int64_t i, std::int64_t begin, std::int64_t end) {
                parts[static_cast<std::size_t>(i * per_row + begin / block_size)] =
                    square_block(from + list[i] * stride + begin, end - begin);
            });
    });
    return in_order(parts);
}

double max_abs(Tensor x) {
    count_kernel(__func__);
    count_call(Call::host_read);
    if (x.empty()) return 0;
    double result = 0;
    dispatch(x.dtype(), [&]<class T>() {
        const T* from = x.data<T>();
        std::vector<Wide<T>> parts(static_cast<std::size_t>(num_blocks(x.size())));
        for_blocks(x.size(), [&parts, from](std::int64_t begin, std::int64_t end) {
            parts[static_cast<std::size_t>(begin / block_size)] = max_magnitude(from + begin, end - begin);
        });
        result = max_magnitude(parts.data(), static_cast<std::int64_t>(parts.size()));
    });
    return result;
}

void pack(Tensor from, const Rectangle& part, Tensor packed) {
    count_kernel(__func__);
    check_rectangle(from, part.rows, part.num_rows, part.column, part.width);
    check_shape("packed rectangle", packed, {part.num_rows, part.width});
    if (packed.empty()) return;
    dispatch(from.dtype(), [&]<class From>() {
        dispatch(packed.dtype(), [&]<class To>() {
            const From* source = from.data<From>() + part.column;
            To* target = packed.data<To>();
            const std::int64_t stride = from.dim(1), width = part.width, num_rows = part.num_rows;
            const std::int32_t* rows = part.rows;
            for_row_blocks(num_rows, width, [=](std::int64_t i, std::int64_t begin, std::int64_t end) {
                if (i + 2 < num_rows) prefetch(source + rows[i + 2] * stride + begin, end - begin);
                copy_block(source + rows[i] * stride + begin, target + i * width + begin, end - begin);
            });
        });
    });
}

void unpack(Tensor packed, const Rectangle& part, Tensor to) {
    count_kernel(__func__);
    check_rectangle(to, part.rows, part.num_rows, part.column, part.width);
    check_shape("packed rectangle", packed, {part.num_rows, part.width});
    if (packed.empty()) return;
    dispatch(packed.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            const From* source = packed.data<From>();
            To* target = to.data<To>() + part.column;
            const std::int64_t stride = to.dim(1), width = part.width, num_rows = part.num_rows;
            const std::int32_t* rows = part.rows;
            for_row_blocks(num_rows, width, [=](std::int64_t i, std::int64_t begin, std::int64_t end) {
                if (i + 2 < num_rows) prefetch<true>(target + rows[i + 2] * stride + begin, end - begin);
                copy_block(source + i * width + begin, target + rows[i] * stride + begin, end - begin);
            });
        });
    });
}

void sum_parts(Tensor parts, std::int64_t offset, std::int64_t own, const Rectangle& part, Tensor to) {
    count_kernel(__func__);
    check_rectangle(to, part.rows, part.num_rows, part.column, part.width);
    internal_check(parts.shape().rank() == 2 && own >= 0 && own < parts.dim(0) && offset >= 0 &&
                       offset + part.num_rows * part.width <= parts.dim(1),
                   "sum of parts {} from {} on, {} of them here, into {} rows of {}", parts.shape(), offset,
                   own, part.num_rows, part.width);
    dispatch(parts.dtype(), [&]<class From>() {
        dispatch(to.dtype(), [&]<class To>() {
            const From* source = parts.data<From>() + offset;
            To* target = to.data<To>() + part.column;
            const std::int64_t num_parts = parts.dim(0), n = parts.dim(1), stride = to.dim(1),
                               width = part.width, num_rows = part.num_rows;
            const std::int32_t* rows = part.rows;
            for_row_blocks(num_rows, width, [=](std::int64_t i, std::int64_t begin, std::int64_t end) {
                if (i + 2 < num_rows) prefetch<true>(target + rows[i + 2] * stride + begin, end - begin);
                sum_parts_block(source + i * width + begin, num_parts, n, own,
                                target + rows[i] * stride + begin, end - begin);
            });
        });
    });
}

}  // namespace switchyard::kernels

// Conversions and checksums of blocks of rows in host memory; tensors are reached through kernels::download
// and upload, as many rows at a time as a block has.
#include "io/checkpoint/stored_values.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and written as values lie in memory");

constexpr std::uint64_t index_factor = 0x9E3779B97F4A7C15ull;

template <class Bits>
std::uint64_t checksum_run(const Bits* bits, std::int64_t count, std::uint64_t first) {
    std::uint64_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i)
        sum += mix64((first + static_cast<std::uint64_t>(i)) * index_factor + bits[i]);
    return sum;
}

template <class Bits>
std::uint64_t checksum_of(const std::byte* stored, std::int64_t rows, std::int64_t cols, std::int64_t first,
                          std::int64_t global_cols) {
    const auto* bits = reinterpret_cast<const Bits*>(stored);
    if (cols == global_cols || rows == 1) {  // one run: cut it so that threads share it
        cols *= rows;
        constexpr std::int64_t run = 16384;
        rows = (cols + run - 1) / run;
        std::uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static) if (rows > 4)
        for (std::int64_t row = 0; row < rows; ++row)
            sum += checksum_run(bits + row * run, std::min(run, cols - row * run), first + row * run);
        return sum;
    }
    std::uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static) if (rows * cols > 65536)
    for (std::int64_t row = 0; row < rows; ++row)
        sum += checksum_run(bits + row * cols, cols, first + row * global_cols);
    return sum;
}

/// to[i] <- from[i]; returns how many do not come back bit for bit.
template <class From, class To, class Forward, class Back>
std::int64_t convert(const std::byte* from, std::byte* to, std::int64_t count, Forward forward, Back back) {
    const auto* source = reinterpret_cast<const From*>(from);
    auto* target = reinterpret_cast<To*>(to);
    std::int64_t inexact = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        target[i] = forward(source[i]);
        const From again = back(target[i]);
        inexact += std::memcmp(&again, &source[i], sizeof(From)) != 0;
    }
    return inexact;
}

}  // namespace

std::int64_t convert_values(DType from, DType to, const std::byte* in, std::byte* out, std::int64_t count) {
    if (from == to) {
        std::memcpy(out, in, count * size_of(from));
        return 0;
    }
    if (from == DType::bf16 && to == DType::f32) {
        const auto* source = reinterpret_cast<const bf16*>(in);
        auto* target = reinterpret_cast<float*>(out);
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) target[i] = to_f32(source[i]);
        return 0;
    }
    if (from == DType::f32 && to == DType::bf16) return convert<float, bf16>(in, out, count, to_bf16, to_f32);
    const auto widen = [](float x) { return static_cast<double>(x); };
    const auto narrow = [](double x) { return static_cast<float>(x); };
    if (from == DType::f32 && to == DType::f64) return convert<float, double>(in, out, count, widen, narrow);
    if (from == DType::f64 && to == DType::f32) return convert<double, float>(in, out, count, narrow, widen);
    throw InternalError(fmt::format("internal error: {} values as {}", name_of(from), name_of(to)));
}

DType stored_dtype(DType dtype) {
    return dtype == DType::bf16 ? DType::f32 : dtype;
}

bool readable_as(DType stored, DType wanted) {
    const auto is_float = [](DType t) { return t == DType::f32 || t == DType::f64; };
    return stored == stored_dtype(wanted) || (is_float(stored) && is_float(wanted));
}

std::string PartValues::problem() const {
    const Shard& shard = shard_;
    const int rank = shard.global.rank();
    if (rank != 1 && rank != 2) return fmt::format("shape {} is not a vector or matrix", shard.global);
    if (shard.empty()) return {};
    if (shard.row0 < 0 || shard.col0 < 0 || shard.row0 + shard.rows > shard.global[0] ||
        shard.col0 + shard.cols > shard.global_cols())
        return fmt::format("rows {}+{} and columns {}+{} are outside {}", shard.row0, shard.rows, shard.col0,
                           shard.cols, shard.global);
    const Shape& shape = tensor_.shape();
    const bool fits = rank == 2 ? shape.rank() == 2 && shape[0] >= shard.rows && shape[1] >= shard.cols
                                : shape.size() >= shard.rows;
    if (!fits || (on_host_ ? host_ : tensor_.raw()) == nullptr)
        return fmt::format("a tensor {} does not hold {} rows and {} columns", shape, shard.rows, shard.cols);
    return {};
}

std::int64_t PartValues::pitch() const {
    return shard_.global.rank() == 2 ? tensor_.dim(1) : 1;
}

Tensor PartValues::rows(std::int64_t begin, std::int64_t count) const {
    return shard_.global.rank() == 2 ? tensor_.rows(begin, count)
                                     : tensor_.reshape({tensor_.size()}).rows(begin, count);
}

std::byte* PartValues::host_rows(std::int64_t begin) const {
    return static_cast<std::byte*>(host_) + static_cast<std::size_t>(begin * pitch()) * size_of(dtype());
}

std::byte* PartValues::scratch_of(std::size_t bytes) {
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    return scratch_.data();
}

void PartValues::pack(std::int64_t begin, std::int64_t count, std::byte* out) {
    const DType from = dtype(), to = stored_dtype(from);
    const bool dense = pitch() == shard_.cols;
    if (!on_host_ && from == to && dense) return kernels::download(rows(begin, count), out);
    const std::byte* in = nullptr;
    if (on_host_) {
        in = host_rows(begin);
    } else {
        const Tensor held = rows(begin, count);
        std::byte* const copied = scratch_of(held.bytes());
        kernels::download(held, copied);
        in = copied;
    }
    const std::int64_t runs = dense ? 1 : count, length = dense ? count * shard_.cols : shard_.cols;
    for (std::int64_t run = 0; run < runs; ++run)
        convert_values(from, to, in + run * pitch() * size_of(from), out + run * length * size_of(to),
                       length);
}

std::int64_t PartValues::unpack(DType stored, std::int64_t begin, std::int64_t count, const std::byte* in) {
    const DType to = dtype();
    const bool dense = pitch() == shard_.cols;
    const Tensor held = on_host_ ? Tensor{} : rows(begin, count);
    if (!on_host_ && stored == to && dense) {
        kernels::upload(in, held);
        return 0;
    }
    std::byte* const out = on_host_ ? host_rows(begin) : scratch_of(held.bytes());
    if (!on_host_ && !dense) kernels::download(held, out);  // keeps the padding
    const std::int64_t runs = dense ? 1 : count, length = dense ? count * shard_.cols : shard_.cols;
    std::int64_t inexact = 0;
    for (std::int64_t run = 0; run < runs; ++run)
        inexact += convert_values(stored, to, in + run * length * size_of(stored),
                                  out + run * pitch() * size_of(to), length);
    if (!on_host_) kernels::upload(out, held);
    return inexact;
}

std::uint64_t checksum_rows(const std::byte* stored, DType dtype, std::int64_t rows, std::int64_t cols,
                            std::int64_t first, std::int64_t global_cols) {
    switch (size_of(dtype)) {
        case 8:
            return checksum_of<std::uint64_t>(stored, rows, cols, first, global_cols);
        case 4:
            return checksum_of<std::uint32_t>(stored, rows, cols, first, global_cols);
        case 1:
            return checksum_of<std::uint8_t>(stored, rows, cols, first, global_cols);
        default:
            return checksum_of<std::uint16_t>(stored, rows, cols, first, global_cols);
    }
}

std::int64_t block_rows(std::int64_t row_bytes) {
    constexpr std::int64_t block_bytes = 4 << 20;
    return std::max<std::int64_t>(1, block_bytes / std::max<std::int64_t>(1, row_bytes));
}

namespace {

std::uint64_t checksum_of_part(const Shard& shard, PartValues values) {
    const std::string problem = values.problem();
    internal_check(problem.empty(), "checksum of {}: {}", shard.name, problem);
    if (shard.empty()) return 0;
    const DType stored = stored_dtype(values.dtype());
    const std::int64_t row_bytes = shard.cols * static_cast<std::int64_t>(size_of(stored));
    const std::int64_t step = std::min(block_rows(row_bytes), shard.rows);
    std::vector<std::byte> block(step * row_bytes);
    std::uint64_t sum = 0;
    for (std::int64_t row = 0; row < shard.rows; row += step) {
        const std::int64_t count = std::min(step, shard.rows - row);
        values.pack(row, count, block.data());
        sum += checksum_rows(block.data(), stored, count, shard.cols,
                             (shard.row0 + row) * shard.global_cols() + shard.col0, shard.global_cols());
    }
    return sum;
}

}  // namespace

std::uint64_t checksum(const Shard& shard, Tensor values) {
    return checksum_of_part(shard, {shard, values});
}

std::uint64_t checksum(const Shard& shard, const HostBlock& values) {
    return checksum_of_part(shard, {shard, values});
}

}  // namespace switchyard

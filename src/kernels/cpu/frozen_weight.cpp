// Frozen weights in panels of rows: a panel is loaded, takes the low-rank product and is stored while it is
// in cache. Panels are a function of shapes alone, so the bits do not depend on the number of threads.
#include "kernels/frozen_weight.hpp"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/call_counts.hpp"
#include "core/cpu/thread_scratch.hpp"
#include "core/error.hpp"
#include "core/first_exception.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/gemm.hpp"

namespace switchyard::kernels {
namespace {

/// Rows of a panel: about 256 KiB of f32, a multiple of 16.
std::int64_t panel_rows(std::int64_t n) {
    return std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(n, 1) / 16 * 16, 16, 128);
}

bool is_split(const FrozenWeight& w) {
    return w.hi.dtype() == DType::bf16;
}

void check(const FrozenWeight& w) {
    internal_check(w.hi.shape().rank() == 2, "frozen weight of shape {}", w.hi.shape());
    internal_check(is_split(w) ? w.lo.dtype() == DType::i16 && w.lo.size() == w.hi.size() : w.lo.empty(),
                   "frozen weight {} in {}: low words {} {}", w.hi.shape(), name_of(w.hi.dtype()),
                   w.lo.shape(), name_of(w.lo.dtype()));
}

void check(const LowRankFactors& f, std::int64_t m, std::int64_t n, DType dtype) {
    internal_check(f.a.shape().rank() == 2 && f.b_transposed.shape().rank() == 2 &&
                       f.a.dim(0) == f.b_transposed.dim(0) && f.a.dim(1) == n && f.row0 >= 0 &&
                       f.b_transposed.dim(1) >= f.row0 + m && f.a.dtype() == dtype &&
                       f.b_transposed.dtype() == dtype,
                   "low-rank factors {} {} and {} {} from row {} of a weight {}x{}, expected in {}",
                   f.a.shape(), name_of(f.a.dtype()), f.b_transposed.shape(), name_of(f.b_transposed.dtype()),
                   f.row0, m, n, name_of(dtype));
}

bool is_wide(const Tensor& t) {
    return t.dtype() == DType::f32 || t.dtype() == DType::f64;
}

void check(const EffectiveWeight& e, std::int64_t m, std::int64_t n, DType dtype) {
    const LowRankFactors& f = e.factors;
    if (!f.a.empty()) check(f, m, n, dtype);
    internal_check(e.gate.empty() || (e.gate.size() == f.a.dim(0) && is_wide(e.gate)),
                   "gate {} {} of {} slots", e.gate.shape(), name_of(e.gate.dtype()), f.a.dim(0));
    internal_check(e.row_scale.empty() || (e.row_scale.size() >= f.row0 + m && is_wide(e.row_scale)),
                   "row scale {} {} of rows {} ... {}", e.row_scale.shape(), name_of(e.row_scale.dtype()),
                   f.row0, f.row0 + m - 1);
}

/// Element i of a vector in f32 or f64; 1 where there is none.
double entry(const Tensor& vector, std::int64_t i) {
    if (vector.empty()) return 1;
    return vector.dtype() == DType::f64 ? vector.data<double>()[i]
                                        : static_cast<double>(vector.data<float>()[i]);
}

void split_words(const float* value, bf16* hi, std::int16_t* lo, std::int64_t count) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(value[i]);
        hi[i].bits = static_cast<std::uint16_t>((bits + 0x8000u) >> 16);
        lo[i] =
            static_cast<std::int16_t>(static_cast<std::uint16_t>(bits));  // bits - (hi << 16), modulo 2^16
    }
}

void join_words(const bf16* hi, const std::int16_t* lo, float* value, std::int64_t count) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
        const std::uint32_t high = static_cast<std::uint32_t>(hi[i].bits) << 16;
        value[i] = std::bit_cast<float>(high + static_cast<std::uint32_t>(static_cast<std::int32_t>(lo[i])));
    }
}

/// slice (slots, rows) <- columns from `begin` on of b (slots, width), rows scaled by the gate.
template <class T>
void copy_columns(const T* b, std::int64_t width, std::int64_t begin, const Tensor& gate, T* slice,
                  std::int64_t slots, std::int64_t rows) {
    for (std::int64_t slot = 0; slot < slots; ++slot) {
        const T* from = b + slot * width + begin;
        T* to = slice + slot * rows;
        if (gate.empty()) {
            std::memcpy(to, from, static_cast<std::size_t>(rows) * sizeof(T));
            continue;
        }
        const auto factor = static_cast<Wide<T>>(entry(gate, slot));
        for (std::int64_t i = 0; i < rows; ++i) to[i] = convert<T>(factor * load(from[i]));
    }
}

/// c (rows, n) f32 or f64, contiguous, += scale * (rows [begin, begin + rows) of B diag(gate)) A. The slice
/// of B is made contiguous first: for a strided one with scale and sum oneDNN has only its reference product,
/// which is ten times slower.
void add_product(const LowRankFactors& f, const Tensor& gate, std::int64_t begin, std::int64_t rows,
                 void* c) {
    const std::int64_t width = f.b_transposed.dim(1), n = f.a.dim(1), slots = f.a.dim(0);
    const DType in = f.a.dtype();
    const Gemm g{.m = rows,
                 .n = n,
                 .k = slots,
                 .a_row = 1,
                 .a_col = rows,
                 .b_row = n,
                 .b_col = 1,
                 .c_row = n,
                 .in = in,
                 .out = accumulate_type(in),
                 .alpha = static_cast<float>(f.scale),
                 .accumulate = true};
    const void* b = f.b_transposed.raw();
    if (rows < width || !gate.empty()) {
        void* slice =
            thread_scratch(ScratchUse::factor, static_cast<std::size_t>(slots * rows) * size_of(in));
        dispatch(in, [&]<class T>() {
            copy_columns(f.b_transposed.data<T>(), width, f.row0 + begin, gate, static_cast<T*>(slice), slots,
                         rows);
        });
        b = slice;
    }
    if (in == DType::f64)
        gemm_f64(g, f.scale, static_cast<const double*>(b), f.a.data<double>(), static_cast<double*>(c));
    else
        gemm(g, b, f.a.raw(), c);
}

/// panel (rows, n), W on entry <- the effective weight of its rows.
template <class T>
void form_panel(const EffectiveWeight& e, std::int64_t begin, std::int64_t rows, std::int64_t n, T* panel) {
    if (e.base != 1)
        for (std::int64_t i = 0; i < rows * n; ++i) panel[i] *= static_cast<T>(e.base);
    if (!e.factors.a.empty()) add_product(e.factors, e.gate, begin, rows, panel);
    for (std::int64_t i = 0; i < rows && !e.row_scale.empty(); ++i) {
        const T factor = static_cast<T>(entry(e.row_scale, e.factors.row0 + begin + i));
        for (std::int64_t j = 0; j < n; ++j) panel[i * n + j] *= factor;
    }
}

/// Calls body(begin, rows) for every panel, in parallel.
template <class Body>
void for_panels(std::int64_t m, std::int64_t n, Body body) {
    const std::int64_t step = panel_rows(n), panels = (m + step - 1) / step;
    FirstException failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t p = 0; p < panels; ++p)
        failure.guard([&] { body(p * step, std::min(step, m - p * step)); });
    failure.rethrow();
}

/// The calling thread's panel in `scratch`.
float* panel_of_thread(Tensor scratch, std::int64_t n) {
    return static_cast<float*>(scratch.raw()) + omp_get_thread_num() * panel_rows(n) * n;
}

void check_scratch(Tensor scratch, const FrozenWeight& w) {
    const std::size_t needed = frozen_scratch_bytes(w.hi.dim(0), w.hi.dim(1), w.hi.dtype());
    internal_check(needed == 0 || scratch.bytes() >= needed, "scratch of {} bytes where {} are needed",
                   needed ? scratch.bytes() : 0, needed);
}

/// Row i of W, columns [begin, begin + width), width <= block.
constexpr std::int64_t block = 32;
template <class Value, class Factor>
void form_rows_in_order(Tensor value, const EffectiveWeight& e) {
    const LowRankFactors& f = e.factors;
    const std::int64_t m = value.dim(0), n = value.dim(1), slots = f.a.empty() ? 0 : f.a.dim(0);
    const Factor *a = slots ? f.a.data<Factor>() : nullptr,
                 *b = slots ? f.b_transposed.data<Factor>() : nullptr;
    const std::int64_t width_b = slots ? f.b_transposed.dim(1) : 0;
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < m; ++i) {
        const double row_scale = entry(e.row_scale, f.row0 + i);
        for (std::int64_t begin = 0; begin < n; begin += block) {
            const std::int64_t width = std::min(block, n - begin);
            double sum[block] = {};
            for (std::int64_t slot = 0; slot < slots; ++slot) {
                const double b_value = convert<double>(b[slot * width_b + f.row0 + i]) * entry(e.gate, slot);
                const Factor* a_row = a + slot * n + begin;
#pragma omp simd
                for (std::int64_t j = 0; j < width; ++j)
                    sum[j] = std::fma(b_value, convert<double>(a_row[j]), sum[j]);
            }
            Value* out = value.data<Value>() + i * n + begin;
            for (std::int64_t j = 0; j < width; ++j)
                out[j] = static_cast<Value>(row_scale *
                                            std::fma(f.scale, sum[j], e.base * static_cast<double>(out[j])));
        }
    }
}

}  // namespace

void store_frozen(Tensor value, FrozenWeight w) {
    count_kernel(__func__);
    check(w);
    internal_check(value.size() == w.hi.size() && value.dtype() == accumulate_type(w.hi.dtype()),
                   "store_frozen: {} {} into {} {}", value.shape(), name_of(value.dtype()), w.hi.shape(),
                   name_of(w.hi.dtype()));
    const std::int64_t n = w.hi.dim(1);
    for_panels(w.hi.dim(0), n, [&](std::int64_t begin, std::int64_t rows) {
        const Tensor from = value.reshape(w.hi.shape()).rows(begin, rows);
        const FrozenWeight to = w.rows(begin, rows);
        if (is_split(w))
            split_words(from.data<float>(), to.hi.data<bf16>(), to.lo.data<std::int16_t>(), rows * n);
        else
            std::memmove(to.hi.raw(), from.raw(), from.bytes());
    });
}

void load_frozen(FrozenWeight w, Tensor value) {
    count_kernel(__func__);
    check(w);
    internal_check(value.size() == w.hi.size() && value.dtype() == accumulate_type(w.hi.dtype()),
                   "load_frozen: {} {} into {} {}", w.hi.shape(), name_of(w.hi.dtype()), value.shape(),
                   name_of(value.dtype()));
    const std::int64_t n = w.hi.dim(1);
    for_panels(w.hi.dim(0), n, [&](std::int64_t begin, std::int64_t rows) {
        const FrozenWeight from = w.rows(begin, rows);
        const Tensor to = value.reshape(w.hi.shape()).rows(begin, rows);
        if (is_split(w))
            join_words(from.hi.data<bf16>(), from.lo.data<std::int16_t>(), to.data<float>(), rows * n);
        else
            std::memmove(to.raw(), from.hi.raw(), to.bytes());
    });
}

void add_low_rank(FrozenWeight w, const LowRankFactors& factors, Tensor scratch) {
    count_kernel(__func__);
    check(w);
    const std::int64_t m = w.hi.dim(0), n = w.hi.dim(1);
    check(factors, m, n, accumulate_type(w.hi.dtype()));
    check_scratch(scratch, w);
    if (factors.a.dim(0) == 0) return;
    for_panels(m, n, [&](std::int64_t begin, std::int64_t rows) {
        const FrozenWeight part = w.rows(begin, rows);
        if (!is_split(w)) return add_product(factors, {}, begin, rows, part.hi.raw());
        float* panel = panel_of_thread(scratch, n);
        join_words(part.hi.data<bf16>(), part.lo.data<std::int16_t>(), panel, rows * n);
        add_product(factors, {}, begin, rows, panel);
        split_words(panel, part.hi.data<bf16>(), part.lo.data<std::int16_t>(), rows * n);
    });
}

void merge(FrozenWeight w, const EffectiveWeight& effective, Tensor merged, Tensor scratch) {
    count_kernel(__func__);
    check(w);
    const std::int64_t m = w.hi.dim(0), n = w.hi.dim(1);
    check(effective, m, n, w.hi.dtype());
    check_scratch(scratch, w);
    internal_check(merged.shape() == w.hi.shape() && merged.dtype() == w.hi.dtype(),
                   "merge of {} {} into {} {}", w.hi.shape(), name_of(w.hi.dtype()), merged.shape(),
                   name_of(merged.dtype()));
    for_panels(m, n, [&](std::int64_t begin, std::int64_t rows) {
        const FrozenWeight part = w.rows(begin, rows);
        const Tensor out = merged.rows(begin, rows);
        if (!is_split(w)) {
            std::memcpy(out.raw(), part.hi.raw(), out.bytes());
            if (w.hi.dtype() == DType::f64) return form_panel(effective, begin, rows, n, out.data<double>());
            return form_panel(effective, begin, rows, n, out.data<float>());
        }
        float* panel = panel_of_thread(scratch, n);
        join_words(part.hi.data<bf16>(), part.lo.data<std::int16_t>(), panel, rows * n);
        form_panel(effective, begin, rows, n, panel);
        copy_block(panel, out.data<bf16>(), rows * n);
    });
}

std::size_t frozen_scratch_bytes(std::int64_t m, std::int64_t n, DType compute) {
    if (compute != DType::bf16 || m == 0) return 0;
    return static_cast<std::size_t>(omp_get_max_threads() * panel_rows(n) * n) * sizeof(float);
}

void form_in_order(Tensor value, const EffectiveWeight& e) {
    count_kernel(__func__);
    internal_check(value.shape().rank() == 2, "form_in_order of {}", value.shape());
    const DType factor = e.factors.a.empty() ? value.dtype() : e.factors.a.dtype();
    check(e, value.dim(0), value.dim(1), factor);
    if (value.dtype() == DType::f64 && factor == DType::f64)
        return form_rows_in_order<double, double>(value, e);
    if (value.dtype() == DType::f32 && factor == DType::f32)
        return form_rows_in_order<float, float>(value, e);
    if (value.dtype() == DType::f32 && factor == DType::bf16)
        return form_rows_in_order<float, bf16>(value, e);
    internal_check(false, "form_in_order: {} from {}", name_of(value.dtype()), name_of(factor));
}

void scale_rows(Tensor matrix, Tensor factors, double common) {
    count_kernel(__func__);
    internal_check(matrix.shape().rank() == 2 &&
                       (factors.empty() || (factors.size() >= matrix.dim(0) && is_wide(factors))),
                   "scale_rows of {} by {} {}", matrix.shape(), factors.shape(), name_of(factors.dtype()));
    const std::int64_t n = matrix.dim(1);
    dispatch(matrix.dtype(), [&]<class T>() {
        T* values = matrix.data<T>();
        for_rows(matrix.dim(0), n, [&](std::int64_t i) {
            const auto factor = static_cast<Wide<T>>(common * entry(factors, i));
            for (std::int64_t j = 0; j < n; ++j)
                values[i * n + j] = convert<T>(factor * load(values[i * n + j]));
        });
    });
}

}  // namespace switchyard::kernels

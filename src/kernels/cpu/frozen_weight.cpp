// Frozen weights are processed in panels of rows: a panel is loaded, gets the low-rank product and is stored
// while it is in cache. Panels depend on shapes alone, so the bits do not depend on the number of threads.
#include "kernels/frozen_weight.hpp"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/calls.hpp"
#include "core/cpu/thread_scratch.hpp"
#include "core/shared_loop.hpp"
#include "kernels/checks/frozen.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/cpu/gemm.hpp"

namespace switchyard::kernels {
namespace {

/// Rows of a panel: about 256 KiB of f32, a multiple of 16.
std::int64_t panel_rows(std::int64_t n) {
    return std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(n, 1) / 16 * 16, 16, 128);
}

/// Element i of a vector in f32 or f64; 1 if the vector is empty.
double entry(const Tensor& vector, std::int64_t i) {
    if (vector.empty()) return 1;
    return vector.dtype() == DType::f64 ? vector.data<double>()[i] : double{vector.data<float>()[i]};
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

/// slice (slots, rows) <- rows from `begin` on of B diag(gate), slot by slot.
template <class T>
void copy_slice(const LowRankFactors& f, const Tensor& gate, std::int64_t begin, std::int64_t rows,
                T* slice) {
    for (std::int64_t slot = 0; slot < f.a.dim(0); ++slot, slice += rows) {
        const T* from = f.b_transposed.data<T>() + slot * f.b_transposed.dim(1) + f.row0 + begin;
        if (gate.empty()) std::copy_n(from, rows, slice);
        const auto factor = static_cast<Wide<T>>(entry(gate, slot));
        for (std::int64_t i = 0; i < rows && !gate.empty(); ++i)
            slice[i] = convert<T>(factor * load(from[i]));
    }
}

/// c (rows, n) f32 or f64, contiguous, += scale * (rows [begin, begin + rows) of B diag(gate)) A. The slice
/// of B is made contiguous first, because oneDNN has only its reference product (ten times slower) for a
/// strided one with scale and sum.
void add_product(const LowRankFactors& f, const Tensor& gate, std::int64_t begin, std::int64_t rows,
                 void* c) {
    const std::int64_t n = f.a.dim(1), slots = f.a.dim(0);
    const DType in = f.a.dtype();
    const Gemm g{.m = rows,
                 .n = n,
                 .k = slots,
                 .a_row = 1,
                 .a_col = rows,
                 .b_row = n,
                 .c_row = n,
                 .in = in,
                 .out = accumulate_type(in),
                 .alpha = static_cast<float>(f.scale),
                 .accumulate = true};
    const void* b = f.b_transposed.raw();
    if (rows < f.b_transposed.dim(1) || !gate.empty()) {
        void* slice =
            thread_scratch(ScratchUse::factor, static_cast<std::size_t>(slots * rows) * size_of(in));
        dispatch(in, [&]<class T>() { copy_slice(f, gate, begin, rows, static_cast<T*>(slice)); });
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
    for_in_turns(panels, true, [&](std::int64_t p) { body(p * step, std::min(step, m - p * step)); });
}

/// Calls body(rows of the full-precision value, rows of the words) for every panel, in parallel.
template <class Body>
void for_panels_of(Tensor value, FrozenWeight w, Body body) {
    check_value(value, w);
    for_panels(w.hi.dim(0), w.hi.dim(1), [&](std::int64_t begin, std::int64_t rows) {
        body(value.reshape(w.hi.shape()).rows(begin, rows), w.rows(begin, rows));
    });
}

/// out <- the effective weight, or, in place, the words of w.
void form(FrozenWeight w, const EffectiveWeight& e, Tensor out, Tensor scratch, bool in_place) {
    const std::int64_t m = w.hi.dim(0), n = w.hi.dim(1);
    check_scratch("frozen weight", scratch, frozen_scratch_bytes(m, n, w.hi.dtype()));
    for_panels(m, n, [&](std::int64_t begin, std::int64_t rows) {
        const FrozenWeight part = w.rows(begin, rows);
        const Tensor to = out.rows(begin, rows);
        if (!is_split(w)) {
            if (!in_place) std::memcpy(to.raw(), part.hi.raw(), to.bytes());
            return w.hi.dtype() == DType::f64 ? form_panel(e, begin, rows, n, to.data<double>())
                                              : form_panel(e, begin, rows, n, to.data<float>());
        }
        float* panel = static_cast<float*>(scratch.raw()) + omp_get_thread_num() * panel_rows(n) * n;
        join_words(part.hi.data<bf16>(), part.lo.data<std::int16_t>(), panel, rows * n);
        form_panel(e, begin, rows, n, panel);
        in_place ? split_words(panel, part.hi.data<bf16>(), part.lo.data<std::int16_t>(), rows * n)
                 : copy_block(panel, to.data<bf16>(), rows * n);
    });
}

/// Row i of W, columns [begin, begin + width), width <= block.
constexpr std::int64_t block = 32;
template <class Value, class Factor>
void form_rows_in_order(Tensor value, const EffectiveWeight& e) {
    const LowRankFactors& f = e.factors;
    const std::int64_t m = value.dim(0), n = value.dim(1), slots = f.a.dim(0),
                       width_b = f.b_transposed.dim(1);
    const Factor *a = f.a.data<Factor>(), *b = f.b_transposed.data<Factor>();
    for_rows(m, n, [&](std::int64_t i) {
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
    });
}

}  // namespace

void store_frozen(Tensor value, FrozenWeight w) {
    count_kernel(__func__);
    for_panels_of(value, w, [&](Tensor from, FrozenWeight to) {
        if (is_split(w))
            split_words(from.data<float>(), to.hi.data<bf16>(), to.lo.data<std::int16_t>(), from.size());
        else
            std::memmove(to.hi.raw(), from.raw(), from.bytes());
    });
}

void load_frozen(FrozenWeight w, Tensor value) {
    count_kernel(__func__);
    for_panels_of(value, w, [&](Tensor to, FrozenWeight from) {
        if (is_split(w))
            join_words(from.hi.data<bf16>(), from.lo.data<std::int16_t>(), to.data<float>(), to.size());
        else
            std::memmove(to.raw(), from.hi.raw(), to.bytes());
    });
}

void add_low_rank(FrozenWeight w, const LowRankFactors& factors, Tensor scratch, double base) {
    count_kernel(__func__);
    check_add_low_rank(w, factors);
    if (factors.a.dim(0) > 0 || base != 1) form(w, {.factors = factors, .base = base}, w.hi, scratch, true);
}

void merge(FrozenWeight w, const EffectiveWeight& effective, Tensor merged, Tensor scratch) {
    count_kernel(__func__);
    check_merge(w, effective, merged);
    form(w, effective, merged, scratch, false);
}

std::size_t frozen_scratch_bytes(std::int64_t m, std::int64_t n, DType compute) {
    if (compute != DType::bf16 || m == 0) return 0;
    return static_cast<std::size_t>(omp_get_max_threads() * panel_rows(n) * n) * sizeof(float);
}

void form_in_order(Tensor value, const EffectiveWeight& e) {
    count_kernel(__func__);
    const DType factor = check_in_order(value, e);
    if (factor == DType::bf16) return form_rows_in_order<float, bf16>(value, e);
    factor == DType::f64 ? form_rows_in_order<double, double>(value, e)
                         : form_rows_in_order<float, float>(value, e);
}

}  // namespace switchyard::kernels

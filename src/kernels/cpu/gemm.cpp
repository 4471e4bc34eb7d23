// oneDNN products with a cache of primitives per thread; each entry owns its memory objects, so a call only
// sets pointers. Where oneDNN has no fast bf16 product (CPUs without AVX-512), bf16 is computed through f32.
#include "kernels/cpu/gemm.hpp"

#include <omp.h>

#include <dnnl.hpp>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "core/cpu/thread_scratch.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "kernels/matmul.hpp"

namespace switchyard::kernels {
namespace {

using dnnl::memory;

/// The number of threads that oneDNN uses at this point. It is part of the key because blocking depends on
/// it.
int usable_threads() {
    return omp_in_parallel() ? 1 : omp_get_max_threads();
}

struct Key {
    Gemm gemm;
    int threads;
    bool operator==(const Key&) const = default;
};

struct KeyHash {
    std::size_t operator()(const Key& key) const {
        const Gemm& g = key.gemm;
        std::uint64_t h = static_cast<std::uint64_t>(key.threads);
        for (std::int64_t x : {g.m, g.n, g.k, g.a_row, g.a_col, g.b_row, g.b_col, g.c_row})
            h = mix64(h + static_cast<std::uint64_t>(x) + 0x9E3779B97F4A7C15ull);
        return h ^
               (static_cast<std::uint64_t>(g.in) << 8 | static_cast<std::uint64_t>(g.out) << 4 |
                g.accumulate) ^
               std::bit_cast<std::uint32_t>(g.alpha);
    }
};

struct Product {
    dnnl::matmul primitive;
    memory a, b, c, scratch;
    std::size_t scratch_bytes = 0;
    std::unordered_map<int, memory> arguments;
    std::optional<dnnl::reorder> turn;  // of `given`, the transposed first operand, into a
    memory given;
};

const dnnl::engine& cpu_engine() {
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

memory::data_type dnnl_type(DType dtype) {
    return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

dnnl::primitive_attr attributes(const Gemm& g) {
    dnnl::post_ops ops;
    if (g.alpha != 1.0f) {
#if DNNL_VERSION_MAJOR >= 3
        ops.append_eltwise(dnnl::algorithm::eltwise_linear, g.alpha, 0.0f);
#else
        ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, g.alpha, 0.0f);
#endif
    }
    if (g.accumulate) ops.append_sum(1.0f);
    dnnl::primitive_attr attr;
    attr.set_post_ops(ops);
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attr.set_fpmath_mode(dnnl::fpmath_mode::strict);
    return attr;
}

#if DNNL_VERSION_MAJOR < 3
/// oneDNN 2 prefers its blocked product on AMX. Where that copies a transposed first operand it is up to
/// twice as slow as the older one, and it is slower too where it sums over many rows of the second operand
/// (measured with 2.6.3, docs/benchmarks.md).
bool older_is_faster(const Gemm& g) {
    const bool large = g.m * g.n * g.k > std::int64_t{1} << 27;
    return g.in == DType::bf16 && large && g.b_col == 1 && (g.a_col != 1 || g.k >= 2048);
}

/// With few rows in a it is faster on AMX to transpose a transposed a first and, with k >= 2048, to split the
/// sum into pieces whose operands stay in a core's cache (docs/benchmarks.md).
bool few_rows_on_amx(const Gemm& g) {
    return g.in == DType::bf16 && g.m <= 512 &&
           dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx;
}
#else
bool few_rows_on_amx(const Gemm&) {
    return false;
}
#endif

/// long_sum: the number of terms from which on a sum is cut. sum_piece: terms of each piece but the last,
/// which has up to twice as many.
constexpr std::int64_t long_sum = 2048, sum_piece = 512;

bool transposing_pays(const Gemm& g) {
    return g.a_col != 1 && g.m * g.n * g.k > std::int64_t{1} << 25 && g.k < long_sum && few_rows_on_amx(g);
}

bool pieces_pay(const Gemm& g) {
    return g.b_col == 1 && g.k >= long_sum && g.out == DType::f32 && few_rows_on_amx(g);
}

dnnl::matmul::primitive_desc describe(const Gemm& g) {
    const memory::desc a({g.m, g.k}, dnnl_type(g.in), memory::dims{g.a_row, g.a_col});
    const memory::desc b({g.k, g.n}, dnnl_type(g.in), memory::dims{g.b_row, g.b_col});
    const memory::desc c({g.m, g.n}, dnnl_type(g.out), memory::dims{g.c_row, 1});
    const dnnl::primitive_attr attr = attributes(g);
#if DNNL_VERSION_MAJOR >= 3
    return {cpu_engine(), a, b, c, attr};
#else
    const dnnl::matmul::desc product(a, b, c);
    const dnnl::matmul::primitive_desc preferred(product, attr, cpu_engine());
    if (!older_is_faster(g)) return preferred;
    dnnl::matmul::primitive_desc older(product, attr, cpu_engine());
    while (std::string_view(older.impl_info_str()) != "gemm:jit")
        if (!older.next_impl()) return preferred;
    return older;
#endif
}

Product make_product(const Gemm& given) {
    Gemm g = given;
    const bool transposed = transposing_pays(given);
    if (transposed) g.a_row = g.k, g.a_col = 1;
    const dnnl::matmul::primitive_desc description = describe(g);
    const auto bind = [](const memory::desc& desc) { return memory(desc, cpu_engine(), nullptr); };
    Product p{.primitive = dnnl::matmul(description),
              .a = bind(description.src_desc()),
              .b = bind(description.weights_desc()),
              .c = bind(description.dst_desc()),
              .scratch = bind(description.scratchpad_desc()),
              .scratch_bytes = description.scratchpad_desc().get_size(),
              .arguments = {},
              .turn = {},
              .given = {}};
    // Copies of a memory object share its handle.
    p.arguments = {
        {DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b}, {DNNL_ARG_DST, p.c}, {DNNL_ARG_SCRATCHPAD, p.scratch}};
    if (transposed) {
        p.given = bind({{g.m, g.k}, dnnl_type(g.in), memory::dims{given.a_row, given.a_col}});
        p.turn = dnnl::reorder({cpu_engine(), p.given.get_desc(), cpu_engine(), p.a.get_desc()});
    }
    return p;
}

const Product& cached_product(const Gemm& g) {
    constexpr std::size_t most_entries = 4096;
    thread_local std::unordered_map<Key, Product, KeyHash> cache;
    const Key key{g, usable_threads()};
    const auto found = cache.find(key);
    if (found != cache.end()) return found->second;
    if (cache.size() >= most_entries) cache.clear();
    return cache.emplace(key, make_product(g)).first->second;
}

void run_dnnl(const Gemm& g, const void* a, const void* b, void* c) {
    thread_local dnnl::stream stream(cpu_engine());
    try {
        const Product& p = cached_product(g);
        (p.turn ? p.given : p.a).set_data_handle(const_cast<void*>(a));
        if (p.turn) {
            p.a.set_data_handle(thread_scratch(ScratchUse::transposed, p.a.get_desc().get_size()));
            p.turn->execute(stream, const_cast<memory&>(p.given), const_cast<memory&>(p.a));
        }
        p.b.set_data_handle(const_cast<void*>(b));
        p.c.set_data_handle(c);
        p.scratch.set_data_handle(p.scratch_bytes ? thread_scratch(ScratchUse::product, p.scratch_bytes)
                                                  : nullptr);
        p.primitive.execute(stream, p.arguments);
        stream.wait();
    } catch (const dnnl::error& error) {
        throw InternalError(fmt::format(
            "internal error: oneDNN product {} x {} x {} ({} to {}) failed: {} (status {})", g.m, g.n, g.k,
            name_of(g.in), name_of(g.out), error.what(), static_cast<int>(error.status)));
    }
}

void run_in_pieces(Gemm g, const void* a, const void* b, void* c) {
    const auto from = [&](const void* operand, std::int64_t elements) {
        return static_cast<const std::byte*>(operand) + static_cast<std::size_t>(elements) * size_of(g.in);
    };
    const std::int64_t terms = g.k;
    for (std::int64_t begin = 0; begin < terms; begin += g.k) {
        g.k = terms - begin < 2 * sum_piece ? terms - begin : sum_piece;
        run_dnnl(g, from(a, begin * g.a_col), from(b, begin * g.b_row), c);
        g.accumulate = true;
    }
}

/// True if oneDNN multiplies bf16 here by more than its reference code.
bool has_bf16() {
    static const bool has = [] {
        const Gemm g{.m = 64,
                     .n = 64,
                     .k = 64,
                     .a_row = 64,
                     .b_row = 64,
                     .c_row = 64,
                     .in = DType::bf16,
                     .out = DType::bf16};
        try {
            return std::string_view(describe(g).impl_info_str()).find("ref") == std::string_view::npos;
        } catch (const dnnl::error&) {
            return false;
        }
    }();
    return has;
}

/// to (rows, cols) f32, contiguous, from a strided bf16 matrix with unit stride in either direction.
void widen(const bf16* from, std::int64_t rows, std::int64_t cols, std::int64_t row_stride,
           std::int64_t col_stride, float* to) {
    for_rows(rows, cols, [=](std::int64_t i) {
        for (std::int64_t j = 0; j < cols; ++j)
            to[i * cols + j] = to_f32(from[i * row_stride + j * col_stride]);
    });
}

}  // namespace

void gemm_widened(const Gemm& g, const void* a, const void* b, void* c) {
    const auto floats =
        static_cast<std::size_t>(g.m * g.k + g.k * g.n + (g.out == DType::bf16 ? g.m * g.n : 0));
    auto* a_wide = reinterpret_cast<float*>(thread_scratch(ScratchUse::widened, floats * sizeof(float)));
    float* b_wide = a_wide + g.m * g.k;
    float* c_wide = g.out == DType::bf16 ? b_wide + g.k * g.n : static_cast<float*>(c);
    widen(static_cast<const bf16*>(a), g.m, g.k, g.a_row, g.a_col, a_wide);
    widen(static_cast<const bf16*>(b), g.k, g.n, g.b_row, g.b_col, b_wide);
    Gemm wide = g;
    wide.in = wide.out = DType::f32;
    wide.a_row = g.k, wide.a_col = 1, wide.b_row = g.n, wide.b_col = 1;
    if (g.out == DType::f32) return run_dnnl(wide, a_wide, b_wide, c_wide);
    wide.c_row = g.n;
    auto* narrow = static_cast<bf16*>(c);
    if (g.accumulate) widen(narrow, g.m, g.n, g.c_row, 1, c_wide);
    run_dnnl(wide, a_wide, b_wide, c_wide);
    for_rows(g.m, g.n, [&](std::int64_t i) { copy_block(c_wide + i * g.n, narrow + i * g.c_row, g.n); });
}

std::string matmul_library() {
    const dnnl_version_t& v = *dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", v.major, v.minor, v.patch);
}

void gemm(const Gemm& g, const void* a, const void* b, void* c) {
    if (g.m == 0 || g.n == 0 || (g.k == 0 && g.accumulate)) return;
    if (g.k == 0) {
        for (std::int64_t i = 0; i < g.m; ++i) {
            auto* row = static_cast<std::byte*>(c) + static_cast<std::size_t>(i * g.c_row) * size_of(g.out);
            std::fill_n(row, static_cast<std::size_t>(g.n) * size_of(g.out), std::byte{0});
        }
    } else if (g.in == DType::f64) {
        gemm_f64(g, g.alpha, static_cast<const double*>(a), static_cast<const double*>(b),
                 static_cast<double*>(c));
    } else if (g.in == DType::bf16 && !has_bf16()) {
        gemm_widened(g, a, b, c);
    } else if (pieces_pay(g)) {
        run_in_pieces(g, a, b, c);
    } else {
        run_dnnl(g, a, b, c);
    }
}

}  // namespace switchyard::kernels

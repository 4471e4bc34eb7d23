// Is the library's attention ours? Both compute the same small part of a batch at the start of a run, and
// what they give is compared on the host. Once chosen, the library serves the shape that was tried and no
// other.
#include "cuda/kernels/attention/choice.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/arena.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "cuda/kernels/attention/fused.hpp"
#include "kernels/attention.hpp"
#include "kernels/random.hpp"
#include "kernels/transfer.hpp"

namespace switchyard::kernels {
namespace attention {
namespace {

std::optional<Extents> chosen;

struct Results {
    Tensor o, lse, d_q, d_k, d_v;
};

/// Random operands, and results of our kernels and of two calls of the library's.
struct Trial {
    Extents e;
    Arena arena;
    Tensor q, k, v, d_o, own_scratch, fused_scratch;
    std::array<Results, 3> results;

    explicit Trial(const Extents& extents) : e(extents) {
        arena = allocate_scratch([&](Arena& a) { take(a); });
        std::uint64_t key = 1;
        for (Tensor x : {q, k, v, d_o}) {
            const std::int64_t rows = e.b * e.t, columns = x.size() / rows;
            fill_normal(x.reshape({rows, columns}), {columns, 0, 0, rows, columns}, key++, 1);
        }
    }

    void run_own(const Results& r) const {
        attention_forward(q, k, v, {}, r.o, r.lse, own_scratch);
        attention_backward(arguments(r, own_scratch));
    }
    void run_fused(const Results& r) const {
        fused::forward(e, q, k, v, r.o, r.lse, fused_scratch);
        fused::backward(e, arguments(r, fused_scratch));
    }

  private:
    void take(Arena& a) {
        const auto array = [&](DType dtype, const Shape& shape) {
            return a.take(MemoryClass::workspace, dtype, shape);
        };
        const Shape queries{e.b, e.t, e.h, e.d}, keys{e.b, e.t, e.k, e.d};
        for (Tensor* x : {&q, &d_o}) *x = array(DType::bf16, queries);
        for (Tensor* x : {&k, &v}) *x = array(DType::bf16, keys);
        for (Results& r : results)
            r = {array(DType::bf16, queries), array(DType::f32, {e.b, e.h, e.t}), array(DType::bf16, queries),
                 array(DType::bf16, keys), array(DType::bf16, keys)};
        const auto bytes = [&](std::size_t count) {
            return array(DType::u8, {static_cast<std::int64_t>(count)});
        };
        own_scratch = bytes(attention_scratch_bytes(queries, keys, DType::bf16));
        fused_scratch = bytes(fused::scratch_bytes(e));
    }
    AttentionBackward arguments(const Results& r, Tensor scratch) const {
        return {.d_o = d_o,
                .q = q,
                .k = k,
                .v = v,
                .o = r.o,
                .lse = r.lse,
                .first_key = {},
                .d_q = r.d_q,
                .d_k = r.d_k,
                .d_v = r.d_v,
                .scratch = scratch};
    }
};

std::vector<std::byte> bytes_of(Tensor x) {
    std::vector<std::byte> bytes(x.bytes());
    download(x, bytes.data());
    return bytes;
}

std::vector<float> values_of(Tensor x) {
    const std::vector<std::byte> bytes = bytes_of(x);
    std::vector<float> values(static_cast<std::size_t>(x.size()));
    if (x.dtype() == DType::f32) {
        std::memcpy(values.data(), bytes.data(), bytes.size());
        return values;
    }
    const auto* const narrow = reinterpret_cast<const bf16*>(bytes.data());
    std::transform(narrow, narrow + values.size(), values.begin(), [](bf16 value) { return to_f32(value); });
    return values;
}

/// max |a - b| as a share of tolerance * max |b|; infinite where one is not a number. Operands are about 1,
/// and a result that should be 0, as the gradient of a lone token's query, is not exactly that.
double difference(Tensor a, Tensor b, double tolerance) {
    const std::vector<float> got = values_of(a), expected = values_of(b);
    double error = 0, largest = 0.1;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double apart = std::abs(double{got[i]} - double{expected[i]});
        if (!std::isfinite(apart)) return std::numeric_limits<double>::infinity();
        error = std::max(error, apart);
        largest = std::max(largest, std::abs(double{expected[i]}));
    }
    return error / (tolerance * largest);
}

/// Fills in what the comparison finds.
void compare(const Extents& e, FusedAttention& found) {
    // Weights, gradients of scores and results are rounded to bf16 in both, at different places.
    constexpr double bf16_tolerance = 8.0 / 256, lse_tolerance = 1e-3;
    const Trial trial(e);
    const auto& [own, fused, again] = trial.results;
    trial.run_own(own);
    trial.run_fused(fused);
    trial.run_fused(again);
    const struct {
        const char* name;
        Tensor own, fused, again;
        double tolerance;
    } results[] = {{"o", own.o, fused.o, again.o, bf16_tolerance},
                   {"lse", own.lse, fused.lse, again.lse, lse_tolerance},
                   {"d_q", own.d_q, fused.d_q, again.d_q, bf16_tolerance},
                   {"d_k", own.d_k, fused.d_k, again.d_k, bf16_tolerance},
                   {"d_v", own.d_v, fused.d_v, again.d_v, bf16_tolerance}};
    found.difference = 0;
    for (const auto& r : results) {
        const double share = difference(r.fused, r.own, r.tolerance);
        if (!(share <= 1) && found.problem.empty())
            found.problem =
                fmt::format("its {} differs from that of our kernel by {:.3g} times what rounding explains",
                            r.name, share);
        if (bytes_of(r.fused) != bytes_of(r.again) && found.problem.empty())
            found.problem = fmt::format("its {} does not have the same bits every time", r.name);
        found.difference = std::max(*found.difference, share);
    }
}

}  // namespace

bool is_fused(const Extents& e, Tensor first_key, std::initializer_list<Tensor> tensors) {
    return chosen == e && first_key.empty() && std::all_of(tensors.begin(), tensors.end(), [](Tensor x) {
               return x.dtype() == DType::bf16 && reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0;
           });
}

std::size_t fused_scratch_bytes(const Extents& e, DType compute) {
    return compute == DType::bf16 && chosen == e ? fused::scratch_bytes(e) : 0;
}

}  // namespace attention

FusedAttention try_fused_attention(const AttentionShape& shape) {
    FusedAttention found;
    attention::Extents e = attention::extents_of(shape.q, shape.k);
    if (shape.compute != DType::bf16)
        found.problem = fmt::format("it is for bf16, and run.dtype is {}", name_of(shape.compute));
    else if (shape.first_keys)
        found.problem = "it does not keep documents apart, which data.mask_documents asks for";
    else if (e.d % 8 != 0)
        found.problem = fmt::format("it is for head sizes that 8 divides, and this one is {}", e.d);
    if (!found.problem.empty()) return found;
    found.library = attention::fused::library_text();
    found.problem = attention::fused::problem_with(e);
    if (!found.problem.empty()) return found;
    e.b = attention::fused::sequences_at_once(e);
    found.problem = attention::fused::problem_with(e);
    if (found.problem.empty()) attention::compare(e, found);
    return found;
}

void use_fused_attention(const AttentionShape& shape) {
    attention::chosen = attention::extents_of(shape.q, shape.k);
    const std::string problem = attention::fused::problem_with(*attention::chosen);
    internal_check(problem.empty(), "cuDNN's attention is used: {}", problem);
}

void use_own_attention() {
    attention::chosen.reset();
}

}  // namespace switchyard::kernels

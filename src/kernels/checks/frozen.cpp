#include "kernels/checks/frozen.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

void check_words(const FrozenWeight& w) {
    internal_check(
        w.hi.shape().rank() == 2 &&
            (is_split(w) ? w.lo.dtype() == DType::i16 && w.lo.size() == w.hi.size() : w.lo.empty()),
        "frozen weight {} in {}: low words {} {}", w.hi.shape(), name_of(w.hi.dtype()), w.lo.shape(),
        name_of(w.lo.dtype()));
}

void check_factors(const LowRankFactors& f, std::int64_t m, std::int64_t n, DType dtype) {
    internal_check(
        f.a.shape().rank() == 2 && f.b_transposed.shape().rank() == 2 &&
            f.a.dim(0) == f.b_transposed.dim(0) && f.a.dim(1) == n && f.row0 >= 0 &&
            f.b_transposed.dim(1) >= f.row0 + m && f.a.dtype() == dtype && f.b_transposed.dtype() == dtype,
        "low-rank factors {} {} and {} {} from row {} of {}x{} {}", f.a.shape(), name_of(f.a.dtype()),
        f.b_transposed.shape(), name_of(f.b_transposed.dtype()), f.row0, m, n, name_of(dtype));
}

void check_effective(const EffectiveWeight& e, std::int64_t m, std::int64_t n, DType dtype) {
    if (!e.factors.a.empty()) check_factors(e.factors, m, n, dtype);
    const auto fits = [](const Tensor& t, std::int64_t size) {
        return t.empty() || (t.size() >= size && (t.dtype() == DType::f32 || t.dtype() == DType::f64));
    };
    internal_check(fits(e.gate, e.factors.a.dim(0)) && fits(e.row_scale, e.factors.row0 + m),
                   "gate {} and row scale {} of a weight {}x{}", e.gate.shape(), e.row_scale.shape(), m, n);
}

}  // namespace

void check_value(Tensor value, const FrozenWeight& w) {
    check_words(w);
    internal_check(value.size() == w.hi.size() && value.dtype() == accumulate_type(w.hi.dtype()),
                   "{} {} as the value of {} {}", value.shape(), name_of(value.dtype()), w.hi.shape(),
                   name_of(w.hi.dtype()));
}

void check_add_low_rank(const FrozenWeight& w, const LowRankFactors& factors) {
    check_words(w);
    check_factors(factors, w.hi.dim(0), w.hi.dim(1), accumulate_type(w.hi.dtype()));
}

void check_merge(const FrozenWeight& w, const EffectiveWeight& effective, Tensor merged) {
    check_words(w);
    check_effective(effective, w.hi.dim(0), w.hi.dim(1), w.hi.dtype());
    internal_check(merged.shape() == w.hi.shape() && merged.dtype() == w.hi.dtype(),
                   "merge of {} {} into {} {}", w.hi.shape(), name_of(w.hi.dtype()), merged.shape(),
                   name_of(merged.dtype()));
}

DType check_in_order(Tensor value, const EffectiveWeight& e) {
    const DType factor = e.factors.a.empty() ? value.dtype() : e.factors.a.dtype();
    internal_check(value.shape().rank() == 2 && value.dtype() == accumulate_type(factor),
                   "form_in_order of {} {} from {}", value.shape(), name_of(value.dtype()), name_of(factor));
    check_effective(e, value.dim(0), value.dim(1), factor);
    return factor;
}

}  // namespace switchyard::kernels

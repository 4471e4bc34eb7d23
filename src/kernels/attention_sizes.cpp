#include "kernels/attention_sizes.hpp"

#include "core/error.hpp"

namespace switchyard::kernels::attention {

Extents extents_of(const Shape& q, const Shape& k) {
    internal_check(q.rank() == 4 && k.rank() == 4 && k[0] == q[0] && k[1] == q[1] && k[3] == q[3] &&
                       k[2] > 0 && q[2] % k[2] == 0,
                   "attention: q {}, k {}", q, k);
    return {q[0], q[1], q[2], k[2], q[3]};
}

namespace {

Extents extents(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor lse) {
    const Extents e = extents_of(q.shape(), k.shape());
    internal_check(k.shape() == v.shape() && q.dtype() == k.dtype() && q.dtype() == v.dtype() &&
                       lse.dtype() == accumulate_type(q.dtype()) && lse.shape() == Shape({e.b, e.h, e.t}),
                   "attention: q {} {}, k {} {}, v {} {}, lse {} {}", q.shape(), name_of(q.dtype()),
                   k.shape(), name_of(k.dtype()), v.shape(), name_of(v.dtype()), lse.shape(),
                   name_of(lse.dtype()));
    internal_check(
        first_key.empty() || (first_key.dtype() == DType::i32 &&
                              (first_key.shape() == Shape({e.t}) || first_key.shape() == Shape({e.b, e.t}))),
        "attention: first_key {}", first_key.shape());
    return e;
}

void check_scratch(Tensor scratch, Tensor q, Tensor k) {
    const std::size_t needed = attention_scratch_bytes(q.shape(), k.shape(), q.dtype());
    internal_check(scratch.bytes() >= needed && (needed == 0 || scratch.raw() != nullptr),
                   "attention: scratch of {} bytes where {} are needed", scratch.bytes(), needed);
}

}  // namespace

Extents check_forward(Tensor q, Tensor k, Tensor v, Tensor first_key, Tensor o, Tensor lse, Tensor scratch) {
    const Extents e = extents(q, k, v, first_key, lse);
    internal_check(o.shape() == q.shape() && o.dtype() == q.dtype(), "attention: o {}", o.shape());
    check_scratch(scratch, q, k);
    return e;
}

Extents check_backward(const AttentionBackward& a) {
    const Extents e = extents(a.q, a.k, a.v, a.first_key, a.lse);
    internal_check(a.o.shape() == a.q.shape() && a.d_o.shape() == a.q.shape() &&
                       a.d_q.shape() == a.q.shape() && a.d_k.shape() == a.k.shape() &&
                       a.d_v.shape() == a.k.shape(),
                   "attention: o {}, d_o {}, d_q {}, d_k {}, d_v {} for q {}", a.o.shape(), a.d_o.shape(),
                   a.d_q.shape(), a.d_k.shape(), a.d_v.shape(), a.q.shape());
    for (const Tensor& x : {a.o, a.d_o, a.d_q, a.d_k, a.d_v})
        internal_check(x.dtype() == a.q.dtype(), "attention: {} with q {}", name_of(x.dtype()),
                       name_of(a.q.dtype()));
    check_scratch(a.scratch, a.q, a.k);
    return e;
}

}  // namespace switchyard::kernels::attention

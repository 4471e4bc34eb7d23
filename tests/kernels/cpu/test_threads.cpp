// The bits of kernels do not depend on the number of threads: one entry per kernel, with sizes of several
// blocks and of uneven shares. (Attention, elementwise norms, embedding and merges have such tests in their
// own files; oneDNN's f32 and bf16 products do not promise it.)
#include <functional>

#include "kernels/adamw.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/frozen_weight.hpp"
#include "kernels/norm.hpp"
#include "kernels/random.hpp"
#include "kernels/rope.hpp"
#include "kernels/swiglu.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"

namespace switchyard::test {
namespace {

using Results = std::vector<HostTensor>;

template <class... Tensors>
Results results(Tensors... tensors) {
    Results all;
    (all.push_back(std::move(tensors)), ...);
    return all;
}

constexpr std::int64_t rows = 137, width = 517;

struct Kernel {
    const char* name;
    std::function<Results(DType)> run;
};

HostTensor input(DType dtype, const char* name) {
    return HostTensor::normal(dtype, {rows, width}, name);
}

Results elementwise(DType dtype) {
    const HostTensor x = input(dtype, "x");
    HostTensor sum = input(dtype, "y"), copy(DType::f32, {rows, width}), turned(dtype, {width, rows}),
               parts = input(dtype, "parts");
    kernels::add(x, sum, 0.3);
    kernels::copy(x, copy);
    kernels::transpose(x, turned);
    const HostTensor twice = HostTensor::normal(dtype, {2, rows * width}, "twice");
    const kernels::RowSum both{kernels::whole_rows(parts), 0};
    kernels::sum_parts(twice, 1, {&both, 1});
    return results(std::move(sum), std::move(copy), std::move(turned), std::move(parts));
}

HostTensor norm_scratch(const HostTensor& x) {
    return scratch_of(kernels::rms_norm_scratch_bytes(x.shape()[0], x.shape()[1], x.dtype()));
}

Results norm(DType dtype) {
    const DType wide = accumulate_type(dtype);
    const HostTensor x = input(dtype, "x"), y = input(dtype, "y"), d_h = input(dtype, "d_h");
    const HostTensor weight = HostTensor::normal(dtype, {width}, "w");
    HostTensor sum(dtype, {rows, width}), h = sum.clone(), rstd(wide, {rows}), d_x = input(dtype, "d_x"),
                                          d_weight = HostTensor::normal(wide, {width}, "d_w");
    kernels::add_rms_norm_forward(x, y, weight, sum, h, rstd, 1e-5);
    kernels::rms_norm_backward(d_h, sum, weight, rstd, d_x, d_weight, norm_scratch(sum));
    return results(std::move(h), std::move(rstd), std::move(d_x), std::move(d_weight));
}

Results swiglu(DType dtype) {
    const HostTensor gate = input(dtype, "gate"), up = input(dtype, "up"), d_a = input(dtype, "d_a");
    HostTensor a(dtype, {rows, width}), d_gate = a.clone(), d_up = a.clone();
    kernels::swiglu_forward(gate, up, a);
    kernels::swiglu_backward(d_a, gate, up, d_gate, d_up, {});
    return results(std::move(a), std::move(d_gate), std::move(d_up));
}

Results rope(DType dtype) {
    HostTensor x = HostTensor::normal(dtype, {2, 150, 5, 18}, "x"),
               table(accumulate_type(dtype), {150, 2, 9});
    kernels::rope_table(table, 10000);
    kernels::rope(x, table, kernels::Rotation::forward);
    return results(std::move(x), std::move(table));
}

Results cross_entropy(DType dtype) {
    HostTensor memory = input(dtype, "logits"), stats(accumulate_type(dtype), {1, 3, rows}),
               lse(accumulate_type(dtype), {rows}), loss(DType::f64, {1});
    const Tensor logits = static_cast<Tensor>(memory).reshape({width, rows});
    std::vector<std::int32_t> list;
    for (std::int32_t i = 0; i < rows; ++i) list.push_back(i % 5 == 0 ? -1 : 3 * i);
    const HostTensor targets = HostTensor::integers({rows}, list);
    const kernels::VocabRange range{0, width - 2};
    kernels::softmax_statistics(logits, targets, range, static_cast<Tensor>(stats).reshape({3, rows}));
    kernels::combine_statistics(stats, targets, lse, loss);
    kernels::cross_entropy_backward(logits, lse, targets, range, 0.1);
    return results(std::move(stats), std::move(loss), std::move(memory));
}

Results adamw(DType dtype) {
    const DType wide = accumulate_type(dtype);
    HostTensor master = input(wide, "master"), m = input(wide, "m"), v(wide, {rows, width}),
               value = input(dtype, "value");
    const HostTensor gradient = input(wide, "gradient");
    std::vector<std::int32_t> steps, list;
    for (std::int32_t i = 0; i < rows; ++i) steps.push_back(i % 7), list.push_back(rows - 1 - i);
    const HostTensor step = HostTensor::integers({rows}, steps), all = HostTensor::integers({rows}, list);
    const kernels::AdamWRows parameter{.master = master,
                                       .m = m,
                                       .v = v,
                                       .step = step,
                                       .gradient = gradient,
                                       .value = value,
                                       .rows = kernels::Rows::listed(all),
                                       .settings = {.lr = 0.01, .weight_decay = 0.1}};
    kernels::adamw({&parameter, 1}, HostTensor(DType::f64, {2}, {0.5, 1}));
    return results(std::move(master), std::move(m), std::move(v), std::move(value));
}

Results random(DType dtype) {
    HostTensor normal(dtype, {rows, width}), uniform = normal.clone();
    kernels::fill_normal(normal, {1000, 3, 5, rows, width - 2}, 9, 0.02);
    kernels::fill_uniform(uniform, {1000, 3, 5, rows, width - 2}, 9, 0.02);
    return results(std::move(normal), std::move(uniform));
}

Results frozen_weight(DType dtype) {
    const DType wide = accumulate_type(dtype);
    HostTensor value = input(wide, "w"), hi(dtype, {rows, width}), lo, loaded = value.clone();
    if (dtype == DType::bf16) lo = HostTensor(DType::i16, {rows, width});
    kernels::form_in_order(value, {{HostTensor::normal(dtype, {9, width}, "a"),
                                    HostTensor::normal(dtype, {9, rows}, "b"), -0.3}});
    kernels::store_frozen(value, {hi, lo});
    kernels::load_frozen({hi, lo}, loaded);
    return results(std::move(hi), std::move(loaded));
}

class KernelThreads : public ::testing::TestWithParam<Kernel> {};

TEST_P(KernelThreads, DoNotChangeBits) {
    for (DType dtype : compute_types) {
        Results one;
        {
            const Threads scope(1);
            one = GetParam().run(dtype);
        }
        for (int threads : {2, 3, 8}) {
            const Threads scope(threads);
            const Results several = GetParam().run(dtype);
            for (std::size_t i = 0; i < one.size(); ++i)
                EXPECT_TRUE(same_bits(several[i], one[i]))
                    << name_of(dtype) << ", result " << i << ", " << threads << " threads";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, KernelThreads,
                         ::testing::Values(Kernel{"elementwise", elementwise}, Kernel{"norm", norm},
                                           Kernel{"swiglu", swiglu}, Kernel{"rope", rope},
                                           Kernel{"cross_entropy", cross_entropy}, Kernel{"adamw", adamw},
                                           Kernel{"random", random}, Kernel{"frozen_weight", frozen_weight}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace switchyard::test

// RANKS: 1
// Every thread treats subnormal numbers as zeros inside the scope and keeps them outside; the passes of a
// model run inside.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/subnormals.hpp"
#include "kernels/transfer.hpp"
#include "support/threads.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"

namespace switchyard {
namespace {

constexpr int num_threads = 3;

struct Seen {
    int operands = 0, results = 0;  // number of threads that kept a subnormal number
};

Seen threads_that_keep_them() {
    Seen seen;
    volatile float smallest_normal = 1.17549435e-38f, half = 0.5f, subnormal = 1e-39f, large = 1e30f;
#pragma omp parallel
    {
        const float operand = subnormal * large, result = smallest_normal * half;
#pragma omp critical
        {
            seen.operands += operand != 0;
            seen.results += result != 0;
        }
    }
    return seen;
}

void expect_kept(int threads) {
    const Seen seen = threads_that_keep_them();
    EXPECT_EQ(seen.operands, threads);
    EXPECT_EQ(seen.results, threads);
}

TEST(Subnormals, AreZerosInsideTheScopeOnEveryThread) {
    if (!kernels::can_flush_subnormals()) GTEST_SKIP() << "this processor has no such switch";
    const test::Threads threads(num_threads);
    expect_kept(num_threads);
    {
        const kernels::FlushSubnormals outer;
        expect_kept(0);
        {
            const kernels::FlushSubnormals inner;
            expect_kept(0);
        }
        expect_kept(0);
    }
    expect_kept(num_threads);
}

/// With a loss scale of 1e-39 every gradient of the logits is subnormal, so all gradients are zero. With
/// 1e-35 the gradients of the logits are normal numbers, and many that backward computes from them are not.
TEST(Subnormals, AreZerosInTheGradientsOfAModel) {
    if (!kernels::can_flush_subnormals()) GTEST_SKIP() << "this processor has no such switch";
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    const Topology topology = Topology::create(world, 1);
    testing::TinyRun run(testing::tiny_config({"--method.name=full", "--run.dtype=f32"}), topology);
    Transformer& model = run.state().model;
    testing::upload_batch(run.config(), model);
    const auto num_gradients = [&](double scale, const auto& counts) {
        run.state().optimizer.zero_gradients();
        model.forward(scale);
        model.backward();
        std::int64_t count = 0;
        for (const Parameter* p : model.parameters()) {
            std::vector<float> values(static_cast<std::size_t>(p->gradient.size()));
            kernels::download(p->gradient, values.data());
            count += std::count_if(values.begin(), values.end(), counts);
        }
        return count;
    };
    const auto not_zero = [](float x) { return x != 0; };
    const auto subnormal = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL; };
    EXPECT_GT(num_gradients(1e-35, not_zero), 100);
    EXPECT_EQ(num_gradients(1e-35, subnormal), 0);
    EXPECT_EQ(num_gradients(1e-39, not_zero), 0);
    expect_kept(omp_get_max_threads());
}

}  // namespace
}  // namespace switchyard

// The proximal step of an L1 penalty against its definition, element by element; signs and sums.
#include "kernels/shrink.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

using kernels::Prox;

const DType wide_types[] = {DType::f32, DType::f64};

TEST(Shrink, SoftIsTheProximalStep) {
    for (DType dtype : wide_types) {
        const HostTensor x = HostTensor::normal(dtype, {301}, "x"), clip(DType::f64, {2}, {0.5, 1});
        const Values before = x.values();
        const double xi = 0.25;
        kernels::shrink(x, xi, Prox::soft, clip);
        // The minimum of (y - x)^2 / 2 + xi |y|: no neighbour is better.
        int zeros = 0;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            const auto cost = [&](double y) {
                const double d = y - before[static_cast<std::size_t>(i)];
                return d * d / 2 + xi * std::fabs(y);
            };
            zeros += x.at(i) == 0;
            for (double shift : {-1e-3, 1e-3}) EXPECT_GT(cost(x.at(i) + shift), cost(x.at(i))) << i;
        }
        EXPECT_GT(zeros, 30);
        EXPECT_LT(zeros, 150);
    }
}

TEST(Shrink, PublishedZeroesAllBelowTwiceTheThreshold) {
    for (DType dtype : wide_types) {
        const HostTensor clip(DType::f64, {2}, {1, 1});
        const Values before{0, 0.125, -0.125, 0.3, -0.3, 0.4375, -0.4375, 0.5, -0.5, 0.625, -0.625, 2, -2};
        const HostTensor x(dtype, {13}, before);
        kernels::shrink(x, 0.25, Prox::published, clip);
        EXPECT_EQ(x.values(), (Values{0, 0, 0, 0, 0, 0, 0, 0.25, -0.25, 0.375, -0.375, 1.75, -1.75}));
    }
}

TEST(Shrink, LeavesAStepThatIsNotFiniteAlone) {
    const HostTensor x(DType::f32, {2}, {1, -3}), clip(DType::f64, {2}, {1, 0});
    for (Prox prox : {Prox::soft, Prox::published}) kernels::shrink(x, 0.5, prox, clip);
    EXPECT_EQ(x.values(), (Values{1, -3}));
}

TEST(Shrink, PenaltyAndItsSubgradient) {
    for (DType dtype : wide_types) {
        const HostTensor x(dtype, {4}, {2, -0.5, 0, -0.0}), to(dtype, {4}, {1, 1, 1, 1}),
            sum(DType::f64, {1}, {10});
        kernels::add_signs(x, 0.25, to);
        EXPECT_EQ(to.values(), (Values{1.25, 0.75, 1, 1}));
        kernels::add_l1_norm(x, 3, sum);
        EXPECT_EQ(sum.at(0), 10 + 3 * 2.5);
    }
    const HostTensor x(DType::f32, {4}), narrow(DType::bf16, {4}), clip(DType::f64, {2});
    EXPECT_THROW(kernels::add_signs(x, 1, narrow), InternalError);
    EXPECT_THROW(kernels::shrink(narrow, 1, Prox::soft, clip), InternalError);
    EXPECT_THROW(kernels::shrink(x, 1, Prox::soft, x), InternalError);
}

}  // namespace
}  // namespace switchyard::test

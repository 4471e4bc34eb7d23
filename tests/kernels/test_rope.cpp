// Rotary embedding against the formula in all compute types; backward is its inverse and its gradient.
#include "kernels/rope.hpp"
#include "reference/rope.hpp"
#include "support/grad_check.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace rope_test {

using kernels::Rotation;

struct Case {
    DType dtype;
    std::int64_t batch, tokens, heads, size;
};

class Rope : public ::testing::TestWithParam<Case> {};

TEST_P(Rope, EqualsFormulaAndIsUndoneByBackward) {
    const auto [dtype, batch, tokens, heads, size] = GetParam();
    const double theta = 10000;
    const std::int64_t first = 11;
    HostTensor table(accumulate_type(dtype), {tokens, 2, size / 2});
    kernels::rope_table(table, theta, first);
    const HostTensor x = HostTensor::normal(dtype, {batch, tokens, heads, size}, "x");
    const reference::RopeSizes sizes{static_cast<std::size_t>(batch), static_cast<std::size_t>(tokens),
                                     static_cast<std::size_t>(heads), static_cast<std::size_t>(size)};
    HostTensor forward = x.clone(), backward = x.clone();
    kernels::rope(forward, table, Rotation::forward);
    EXPECT_TRUE(close(forward, reference::rope(x.values(), sizes, theta, first, 1), 2));
    kernels::rope(backward, table, Rotation::backward);
    EXPECT_TRUE(close(backward, reference::rope(x.values(), sizes, theta, first, -1), 2));
    kernels::rope(forward, table, Rotation::backward);
    EXPECT_TRUE(close(forward, x.values(), 4));
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types)
        for (Case c : {Case{dtype, 1, 1, 1, 2},
                       {dtype, 2, 5, 3, 10},
                       {dtype, 2, 17, 4, 64},
                       {dtype, 0, 3, 1, 4},
                       {dtype, 1, watched() ? 8 : 80, 4, 128}})
            cases.push_back(c);
    return cases;
}
INSTANTIATE_TEST_SUITE_P(Types, Rope, ::testing::ValuesIn(cases()));

TEST(RopeTable, HoldsCosinesThenSines) {
    HostTensor table(DType::f64, {3, 2, 2});
    kernels::rope_table(table, 100, 5);
    for (std::int64_t t = 0; t < 3; ++t)
        for (std::int64_t i = 0; i < 2; ++i) {
            const double angle = static_cast<double>(5 + t) * (i == 0 ? 1 : 0.1);  // 100^(-2 / 4)
            EXPECT_NEAR(table.at(t * 4 + i), std::cos(angle), 1e-15);
            EXPECT_NEAR(table.at(t * 4 + 2 + i), std::sin(angle), 1e-15);
        }
}

TEST(RopeGradient, PassesCentralDifferences) {
    const Shape shape{1, 3, 2, 4};
    HostTensor x = HostTensor::normal(DType::f64, shape, "x"), table(DType::f64, {3, 2, 2});
    kernels::rope_table(table, 100, 1);
    const HostTensor d_y = HostTensor::normal(DType::f64, shape, "d_y");
    HostTensor d_x = d_y.clone();
    kernels::rope(d_x, table, Rotation::backward);
    const auto loss = [&] {
        const HostTensor y = x.clone();
        kernels::rope(y, table, Rotation::forward);
        return dot(d_y, y);
    };
    EXPECT_TRUE(gradient_matches(x, d_x, loss));
}

}  // namespace rope_test
}  // namespace switchyard::test

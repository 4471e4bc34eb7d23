// Descent with a factor for each row against its formula in double, and the limit of an update's growth.
#include "kernels/scaled_descent.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

TEST(ScaledDescent, EqualsTheFormulaNumberByNumber) {
    const std::int64_t wide_rows = watched() ? 301 : 9001;
    for (DType dtype : compute_types)
        for (const std::int64_t width : {std::int64_t{1}, std::int64_t{13}, std::int64_t{32}, wide_rows})
            for (const bool with_scale : {true, false}) {
                const DType wide = accumulate_type(dtype);
                constexpr std::int64_t owned = 3, first = 1, all = 5;
                constexpr double lr = 0.125, alpha = 1.5, decay = 0.25;
                const HostTensor master = HostTensor::normal(wide, {owned, width}, "master"),
                                 gradient = HostTensor::normal(wide, {all, width}, "gradient"),
                                 value = HostTensor::normal(dtype, {all, width}, "value"),
                                 scale(wide, {owned}, {2, 0, 0.75}), factor(DType::f64, {1}, {0.3});
                const Values before = master.values(), untouched = value.values();
                const auto descend = [&](double finite) {
                    const kernels::ScaledRows rows{
                        .master = master,
                        .gradient = gradient,
                        .value = value,
                        .rows = kernels::Rows::range(first, owned),
                        .scale = with_scale ? static_cast<Tensor>(scale) : Tensor{},
                        .factor = factor,
                        .lr = lr,
                        .alpha = alpha,
                        .weight_decay = decay};
                    kernels::scaled_descent({&rows, 1}, clip_of(0.25, finite));
                };
                descend(0);  // not finite: nothing happens
                EXPECT_EQ(master.values(), before);
                EXPECT_EQ(value.values(), untouched);
                descend(1);
                Values expected;
                for (std::int64_t i = 0; i < owned; ++i)
                    for (std::int64_t j = 0; j < width; ++j) {
                        const double w = before[static_cast<std::size_t>(i * width + j)],
                                     s = with_scale ? scale.at(i) : 1;
                        expected.push_back(
                            w - lr * (alpha * 0.3 * s * gradient.at((first + i) * width + j) + decay * w));
                    }
                EXPECT_TRUE(close(master, expected, 4)) << name_of(dtype) << " " << width;
                HostTensor copies(dtype, {all, width}, untouched);
                for (std::int64_t i = 0; i < owned * width; ++i)
                    copies.set(first * width + i, master.at(i));
                EXPECT_TRUE(same_bits(value, copies));
            }
}

TEST(ScaledDescent, TakesManyParametersInOneCallAndTheMasterMayBeTheValue) {
    const HostTensor first = HostTensor::normal(DType::f32, {4, 6}, "first"),
                     second = HostTensor::normal(DType::f32, {1, 40}, "second"),
                     none(DType::f32, {0, 7}), factor(DType::f64, {1}, {1}),
                     ones(DType::f32, {4, 6}, Values(24, 1.0)), twos(DType::f32, {1, 40}, Values(40, 2.0));
    const Values a = first.values(), b = second.values();
    const auto rows = [&](const HostTensor& w, const HostTensor& g, std::int64_t count) {
        return kernels::ScaledRows{.master = w,
                                   .gradient = g,
                                   .value = w,
                                   .rows = kernels::Rows::range(0, count),
                                   .factor = factor,
                                   .lr = 0.5};
    };
    const std::vector<kernels::ScaledRows> all{rows(first, ones, 4), rows(none, none, 0),
                                               rows(second, twos, 1)};
    kernels::scaled_descent(all, clip_of(0.25, 1));
    for (std::int64_t i = 0; i < 24; ++i)
        EXPECT_EQ(static_cast<float>(first.at(i)), static_cast<float>(a[i]) - 0.5f);
    for (std::int64_t i = 0; i < 40; ++i)
        EXPECT_EQ(static_cast<float>(second.at(i)), static_cast<float>(b[i]) - 1.0f);
    kernels::ScaledRows wrong = rows(first, ones, 3);
    EXPECT_THROW(kernels::scaled_descent({&wrong, 1}, clip_of(0.25, 1)), InternalError);
}

TEST(LimitGrowth, LetsANormGrowByAFactor) {
    const HostTensor squares(DType::f64, {5}, {9, 4, 1.02, 0.25, 0}),
        previous(DType::f64, {5}, {0, 1, 1, 1, 1}), factors(DType::f64, {5}, {7, 7, 7, 7, 7});
    kernels::limit_growth(squares, 1.25, clip_of(0.25, 0), previous, factors);
    EXPECT_EQ(previous.values(), (Values{0, 1, 1, 1, 1}));
    EXPECT_EQ(factors.values(), (Values{7, 7, 7, 7, 7}));
    kernels::limit_growth(squares, 1.25, clip_of(0.25, 1), previous, factors);
    EXPECT_EQ(factors.values(), (Values{1, 0.625, 1, 1, 1}));  // no limit at the start
    EXPECT_EQ(previous.values(), (Values{3, 1.25, std::sqrt(1.02), 0.5, 0}));
    kernels::limit_growth(squares, 0, clip_of(0.25, 1), previous, factors);
    EXPECT_EQ(factors.values(), (Values{1, 1, 1, 1, 1}));
    EXPECT_EQ(previous.values(), (Values{3, 2, std::sqrt(1.02), 0.5, 0}));
}

}  // namespace
}  // namespace switchyard::test

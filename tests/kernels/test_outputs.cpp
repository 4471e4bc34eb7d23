// Bias and distance of outputs against loops in double: types, sizes around the lengths of blocks, any number
// of threads.
#include "kernels/outputs.hpp"
#include "reference/outputs.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

class Outputs : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Outputs, ::testing::ValuesIn(compute_types));

/// Of a type: large ones take long under ThreadSanitizer.
std::vector<Shape> shapes_for(DType dtype) {
    if (!watched()) return {{1, 1}, {5, 33}, {4096, 1}, {70, 59}, {61, 301}};
    return dtype == DType::f32 ? std::vector<Shape>{{3, 33}, {70, 59}} : std::vector<Shape>{{3, 33}};
}

/// |actual - expected| <= k eps max |expected|, for one rounding to the type and one to that of the sum.
void expect_close(const HostTensor& actual, const Values& expected) {
    double largest = 0;
    for (double x : expected) largest = std::max(largest, std::fabs(x));
    for (std::size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(actual.at(static_cast<std::int64_t>(i)), expected[i], eps_of(actual.dtype()) * largest)
            << i;
}

TEST_P(Outputs, BiasIsAdded) {
    for (const Shape& shape : shapes_for(GetParam())) {
        SCOPED_TRACE(shape.text());
        const HostTensor y = HostTensor::normal(GetParam(), shape, "y"),
                         bias = HostTensor::normal(accumulate_type(GetParam()), {shape[1]}, "bias");
        const Values before = y.values();
        kernels::finish_output({.y = y, .bias = bias});
        expect_close(y, reference::with_bias(before, bias.values()));
    }
}

TEST_P(Outputs, DistanceFromTheTeacher) {
    for (const Shape& shape : shapes_for(GetParam()))
        for (bool with_bias : {false, true}) {
            SCOPED_TRACE(shape.text());
            const HostTensor y = HostTensor::normal(GetParam(), shape, "y"),
                             teacher = HostTensor::normal(GetParam(), shape, "teacher"),
                             sum(DType::f64, {1}, {0.5});
            const HostTensor bias = with_bias
                                        ? HostTensor::normal(accumulate_type(GetParam()), {shape[1]}, "bias")
                                        : HostTensor();
            const Values of_teacher = teacher.values(), before = y.values();
            kernels::finish_output(
                {.y = y, .bias = bias, .teacher = teacher, .scale = -0.3, .weight = 0.25, .sum = sum});
            // The distance is that of y as it is stored.
            reference::Distance expected = reference::distance(y.values(), of_teacher);
            for (double& x : expected.differences) x *= -0.3;
            if (!with_bias) {
                EXPECT_EQ(y.values(), before);
            }
            expect_close(teacher, expected.differences);
            // A difference has one rounding to the type that it is computed in.
            EXPECT_NEAR(sum.at(0), 0.5 + 0.25 * expected.squares,
                        (GetParam() == DType::f64 ? 1e-13 : 1e-6) * (1 + expected.squares));
            const Values once = teacher.values();
            const HostTensor again = HostTensor(GetParam(), shape, of_teacher);
            kernels::finish_output({.y = y, .teacher = again, .scale = -0.3});  // without a sum
            EXPECT_EQ(again.values(), once);
        }
}

TEST(OutputsOfThreads, HaveTheSameBits) {
    if (watched()) GTEST_SKIP() << "no host threads are at work in kernels of a device";
    const Shape shape{301, 87};
    const auto sum_of = [&] {
        const HostTensor y = HostTensor::normal(DType::f32, shape, "y"),
                         teacher = HostTensor::normal(DType::f32, shape, "teacher"), sum(DType::f64, {1});
        kernels::finish_output({.y = y, .teacher = teacher, .sum = sum});
        return sum.at(0);
    };
    double alone = 0;
    {
        const Threads scope(1);
        alone = sum_of();
    }
    for (int count : {2, 3, 8}) {
        const Threads scope(count);
        EXPECT_EQ(sum_of(), alone);
    }
}

TEST(OutputsOfNothing, AreLeftAloneAndOtherSizesAreRefused) {
    const HostTensor none(DType::f32, {0, 4}), sum(DType::f64, {1}, {2}), x(DType::f32, {2, 4}),
        other(DType::f32, {2, 3}), wide(DType::f64, {4});
    kernels::finish_output({.y = none, .teacher = none, .sum = sum});
    EXPECT_EQ(sum.at(0), 2);
    EXPECT_THROW(kernels::finish_output({.y = x, .teacher = other}), InternalError);
    EXPECT_THROW(kernels::finish_output({.y = x, .bias = wide}), InternalError);
    EXPECT_THROW(kernels::finish_output({.y = x, .teacher = x, .sum = x}), InternalError);
}

}  // namespace
}  // namespace switchyard::test

// Moments of gradients known by r coordinates against loops in double: over steps whose coordinates change,
// with rows anywhere in a gradient; and the second moment of an element as a scalar product of pairs.
#include "kernels/pair_moments.hpp"
#include "reference/pair_moments.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace pair_moments_test {

using kernels::num_pairs;
using reference::PairMoment;

constexpr double beta1 = 0.875, beta2 = 0.75;

std::vector<std::int64_t> ranks() {
    if (watched()) return {1, 3, 7};
    if (instrumented()) return {1, 5, 32};
    return {1, 2, 5, 16, 31, 32};
}

/// The state of some rows, and the reference's.
struct Rows {
    std::int64_t r, count, first;
    HostTensor m, v, step, gradient, map, corrections;
    std::vector<PairMoment> expected;

    Rows(DType dtype, std::int64_t r, std::int64_t count, std::int64_t first)
        : r(r),
          count(count),
          first(first),
          m(dtype, {count, r}),
          v(dtype, {count, num_pairs(r)}),
          step(DType::i32, {1}),
          gradient(dtype, {first + count + 2, r}),
          map(DType::f64, {r, r}),
          corrections(DType::f64, {2}),
          expected(static_cast<std::size_t>(count), PairMoment(static_cast<int>(r))) {}

    kernels::PairMoments view() const {
        return {.m = m,
                .v = v,
                .step = step,
                .gradient = kernels::whole_rows(gradient, kernels::Rows::range(first, count)),
                .map = map,
                .corrections = corrections,
                .beta1 = beta1,
                .beta2 = beta2};
    }
    /// New coordinates of a gradient, and a map near the identity that is not symmetric.
    void draw(const std::string& name) {
        gradient = HostTensor::normal(m.dtype(), gradient.shape(), name);
        map = HostTensor::normal(DType::f64, {r, r}, name + " map", 0.5 / std::sqrt(static_cast<double>(r)));
        for (std::int64_t i = 0; i < r; ++i) map.set(i * r + i, 0.75 + map.at(i * r + i));
    }
    void advance(double clip) {
        for (std::int64_t i = 0; i < count; ++i) {
            Values g;
            for (std::int64_t a = 0; a < r; ++a) g.push_back(clip * gradient.at((first + i) * r + a));
            expected[static_cast<std::size_t>(i)].advance(g, map.values(), beta1, beta2);
        }
    }
    void expect_state(int steps) const {
        Values first_moments, pairs;
        for (const PairMoment& x : expected) {
            const Values of_row = x.pairs();
            first_moments.insert(first_moments.end(), x.m.begin(), x.m.end());
            pairs.insert(pairs.end(), of_row.begin(), of_row.end());
        }
        // Rounded once a step; what a map makes of the rounding is below what it makes of the largest
        // element.
        EXPECT_TRUE(close(m, first_moments, 4, r * steps)) << r;
        EXPECT_TRUE(close(v, pairs, 4, r * steps)) << r;
        EXPECT_EQ(step.at(0), steps);
        EXPECT_NEAR(corrections.at(0), 1 / (1 - std::pow(beta1, steps)), 1e-14);
        EXPECT_NEAR(corrections.at(1), 1 / (1 - std::pow(beta2, steps)), 1e-14);
    }
};

TEST(PairMoments, FollowCoordinatesThatChange) {
    for (const DType dtype : {DType::f32, DType::f64})
        for (const std::int64_t r : ranks()) {
            Rows some(dtype, r, watched() ? 9 : 19, 3), few(dtype, r, 1, 0), none(dtype, r, 0, 0);
            const int steps = watched() ? 2 : 4;
            for (int t = 0; t < steps; ++t) {
                for (Rows* rows : {&some, &few, &none}) rows->draw(std::to_string(t));
                const double clip = t % 2 == 0 ? 0.25 : 1;
                const std::vector<kernels::PairMoments> all{some.view(), none.view(), few.view()};
                kernels::advance_pair_moments(all, clip_of(clip, 1));
                some.advance(clip);
                few.advance(clip);
            }
            some.expect_state(steps);
            few.expect_state(steps);
            EXPECT_EQ(none.step.at(0), steps);
        }
    kernels::advance_pair_moments({}, clip_of(1, 1));
}

TEST(PairMoments, StayWhereGradientsAreNotFinite) {
    Rows rows(DType::f32, 4, 5, 1);
    rows.draw("first");
    kernels::PairMoments view = rows.view();
    kernels::advance_pair_moments({&view, 1}, clip_of(1, 1));
    const Values m = rows.m.values(), v = rows.v.values();
    rows.draw("second");
    view = rows.view();
    kernels::advance_pair_moments({&view, 1}, clip_of(1, 0));
    EXPECT_EQ(rows.m.values(), m);
    EXPECT_EQ(rows.v.values(), v);
    EXPECT_EQ(rows.step.at(0), 1);
}

/// Of any element of q times the gradient: pairs of P times products of q.
TEST(PairProducts, GiveTheSecondMomentOfEveryElement) {
    for (const DType dtype : {DType::f32, DType::f64})
        for (const std::int64_t r : ranks()) {
            const std::int64_t rows = watched() ? 5 : 37;
            const HostTensor q = HostTensor::normal(dtype, {rows, r}, "q"),
                             pairs(dtype, {rows, num_pairs(r)});
            kernels::pair_products(q, pairs);
            PairMoment moment(static_cast<int>(r));
            for (int t = 0; t < 3; ++t) {
                const HostTensor g = HostTensor::normal(DType::f64, {r}, "g" + std::to_string(t));
                Values one(static_cast<std::size_t>(r * r));
                for (std::int64_t i = 0; i < r; ++i) one[static_cast<std::size_t>(i * r + i)] = 1;
                moment.advance(g.values(), one, beta1, beta2);
            }
            const Values packed = moment.pairs();
            for (std::int64_t i = 0; i < rows; ++i) {
                Values row;
                double sum = 0, sizes = 0;
                for (std::int64_t a = 0; a < r; ++a) row.push_back(q.at(i * r + a));
                for (std::size_t e = 0; e < packed.size(); ++e) {
                    const double term = packed[e] * pairs.at(i * num_pairs(r) + static_cast<std::int64_t>(e));
                    sum += term;
                    sizes += std::fabs(term);
                }
                EXPECT_NEAR(sum, moment.form(row), 4 * eps_of(dtype) * sizes) << r << ", row " << i;
            }
        }
}

TEST(PairDirection, IsAdamsOfWholeMoments) {
    for (const DType dtype : {DType::f32, DType::f64})
        for (const Shape& shape : {Shape{1, 1}, Shape{3, 37}, Shape{64, 130}}) {
            if (watched() && shape.size() > 200) continue;
            const HostTensor second = HostTensor::normal(dtype, shape, "second"),  // some below zero
                first = HostTensor::normal(dtype, shape, "first"), corrections(DType::f64, {2}, {1.5, 4});
            const Values m = first.values();
            kernels::pair_direction(first, second, corrections, 0.125);
            Values expected;
            for (std::int64_t i = 0; i < shape.size(); ++i)
                expected.push_back(1.5 * m[static_cast<std::size_t>(i)] /
                                   (std::sqrt(4 * std::max(second.at(i), 0.0)) + 0.125));
            EXPECT_TRUE(close(first, expected, 4)) << shape.text();
        }
    const HostTensor first(DType::f32, {1, 3}, {1, 1, 0}), corrections(DType::f64, {2}, {1, 1}),
        second(DType::f32, {1, 3}, {std::numeric_limits<double>::quiet_NaN(), -1, 0});
    kernels::pair_direction(first, second, corrections, 0.5);
    EXPECT_TRUE(std::isnan(first.at(0))) << "a number that is not finite shows";
    EXPECT_EQ(first.at(1), 2);
    EXPECT_EQ(first.at(2), 0);
}

TEST(PairMoments, RefusesOtherShapes) {
    const Rows rows(DType::f32, 33, 1, 0);
    const kernels::PairMoments wide = rows.view();
    EXPECT_THROW(kernels::advance_pair_moments({&wide, 1}, clip_of(1, 1)), InternalError);
    const Rows other(DType::f32, 4, 2, 0);
    kernels::PairMoments wrong = other.view();
    wrong.v = HostTensor(DType::f32, {2, 16});
    EXPECT_THROW(kernels::advance_pair_moments({&wrong, 1}, clip_of(1, 1)), InternalError);
    const HostTensor q(DType::f32, {3, 4}), pairs(DType::f32, {3, 9}), half(DType::bf16, {3, 4}),
        corrections(DType::f64, {2});
    EXPECT_THROW(kernels::pair_products(q, pairs), InternalError);
    EXPECT_THROW(kernels::pair_direction(half, half, corrections, 1), InternalError);
}

}  // namespace pair_moments_test
}  // namespace switchyard::test

// The Newton-Schulz image of tall, wide and square matrices: that of a loop in double, singular values where
// the published coefficients bring them, and what types, zeros and other norms do.
#include "methods/muon/newton_schulz.hpp"
#include "reference/muon.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using test::HostTensor;
using test::Values;

/// O (m, n) of X.
Values image(DType dtype, const Values& x, std::int64_t m, std::int64_t n, int iterations) {
    NewtonSchulz iteration;
    iteration.expect(m, n);
    iteration.expect(3, 5);  // memory for several shapes
    Arena measured;
    iteration.allocate(measured, dtype);
    Arena arena = Arena::allocate(measured);
    iteration.allocate(arena, dtype);
    const HostTensor begin(dtype, {m, n}, x);
    kernels::upload(begin.bytes(), iteration.input(m, n));
    Values result = test::values_of(iteration.run(m, n, iterations));
    for (double& value : result) value *= NewtonSchulz::scale(iterations);
    return result;
}

/// Singular values of x (m, n) with m <= n: lengths of its rows when rotations have made each two orthogonal
/// (Hestenes 1958).
Values singular_values(Values x, int m, int n) {
    const auto dot = [&](int i, int j) {
        double sum = 0;
        for (int k = 0; k < n; ++k) sum += x[i * n + k] * x[j * n + k];
        return sum;
    };
    for (int sweep = 0; sweep < 30; ++sweep)
        for (int i = 0; i < m; ++i)
            for (int j = i + 1; j < m; ++j) {
                const double angle = 0.5 * std::atan2(2 * dot(i, j), dot(i, i) - dot(j, j)),
                             c = std::cos(angle), s = std::sin(angle);
                for (int k = 0; k < n; ++k) {
                    const double u = x[i * n + k], v = x[j * n + k];
                    x[i * n + k] = c * u + s * v;
                    x[j * n + k] = c * v - s * u;
                }
            }
    Values lengths;
    for (int i = 0; i < m; ++i) lengths.push_back(std::sqrt(dot(i, i)));
    std::sort(lengths.begin(), lengths.end());
    return lengths;
}

Values turned(const Values& x, int m, int n) {
    Values result(x.size());
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) result[j * m + i] = x[i * n + j];
    return result;
}

const std::pair<int, int> shapes[] = {{24, 37}, {37, 24}, {24, 24}, {1, 9}, {9, 1}, {7, 50}, {33, 31}};

TEST(NewtonSchulzTest, EqualsTheLoop) {
    for (const auto& [m, n] : shapes)
        for (int iterations : {1, 2, 5}) {
            const Values x = HostTensor::normal(DType::f64, {m, n}, "x", 3).values();
            const Values expected = reference::newton_schulz(x, m, n, iterations);
            const Values o = image(DType::f64, x, m, n, iterations);
            double largest = 0;
            for (double value : expected) largest = std::max(largest, std::fabs(value));
            ASSERT_EQ(o.size(), expected.size());
            for (std::size_t i = 0; i < o.size(); ++i)
                ASSERT_NEAR(o[i], expected[i], 1e-11 * largest) << m << " x " << n << ", " << iterations;
        }
}

/// f32: the smallest singular values are 1e-7 of the norm uncertain, times 3.4445^5. bf16: 2^-8, but for the
/// products' own rounding.
TEST(NewtonSchulzTest, SingularValuesComeNearOneInEveryType) {
    for (const auto& [dtype, low, high] :
         {std::tuple{DType::f64, 0.68, 1.14}, {DType::f32, 0.68, 1.14}, {DType::bf16, 0.62, 1.2}})
        for (const auto& [m, n] : {std::pair{24, 37}, {37, 24}, {7, 50}}) {
            const Values x = HostTensor::normal(DType::f64, {m, n}, "x", 0.01).values();
            const Values o = image(dtype, x, m, n, 5);
            const Values before =
                             singular_values(m > n ? turned(x, m, n) : x, std::min(m, n), std::max(m, n)),
                         after = singular_values(m > n ? turned(o, m, n) : o, std::min(m, n), std::max(m, n));
            double norm = 0;
            for (double s : before) norm += s * s;
            Values expected;
            for (double s : before) {
                double y = s / std::sqrt(norm);
                for (int k = 0; k < 5; ++k) y = 3.4445 * y - 4.7750 * y * y * y + 2.0315 * y * y * y * y * y;
                expected.push_back(y);
            }
            std::sort(expected.begin(), expected.end());
            EXPECT_GT(before.back() / before.front(), 1.4) << "nothing to bring together";
            EXPECT_GT(after.front(), low) << name_of(dtype) << " " << m << " x " << n;
            EXPECT_LT(after.back(), high) << name_of(dtype) << " " << m << " x " << n;
            if (dtype == DType::bf16) continue;
            for (std::size_t i = 0; i < after.size(); ++i)
                EXPECT_NEAR(after[i], expected[i], 3000 * test::eps_of(dtype)) << m << " x " << n;
        }
}

TEST(NewtonSchulzTest, ZerosStayAndTheLengthOfAMatrixHasNoEffect) {
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
        for (double value : image(dtype, Values(12 * 20, 0.0), 12, 20, 5)) ASSERT_EQ(value, 0);
        Values x = HostTensor::normal(DType::bf16, {12, 20}, "x").values();
        for (std::size_t i = 20; i < 40; ++i) x[i] = 0;  // a row of padding
        const Values o = image(dtype, x, 12, 20, 5);
        for (double& value : x) value *= 0x1p-20;  // exact in every type
        EXPECT_EQ(image(dtype, x, 12, 20, 5), o) << name_of(dtype);
        for (std::size_t i = 20; i < 40; ++i) ASSERT_EQ(o[i], 0) << name_of(dtype);
        // Below the smallest norm a matrix counts as small.
        for (double& value : x) value *= 0x1p-40;
        for (double value : image(dtype, x, 12, 20, 1)) ASSERT_LT(std::fabs(value), 1e-8);
    }
}

}  // namespace
}  // namespace switchyard

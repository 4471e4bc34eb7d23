// Cholesky factors and what they solve against products with the matrices themselves, for known solutions.
#include "kernels/cholesky.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace cholesky_test {

/// k Gram matrices of 2 r normal rows, over 2 r.
HostTensor grams_of(std::int64_t k, std::int64_t r) {
    const HostTensor s = HostTensor::normal(DType::f64, {k, 2 * r, r}, "factor");
    HostTensor grams(DType::f64, {k, r, r});
    for (std::int64_t at = 0; at < k; ++at)
        for (std::int64_t i = 0; i < r; ++i)
            for (std::int64_t j = 0; j < r; ++j) {
                double sum = 0;
                for (std::int64_t t = 0; t < 2 * r; ++t)
                    sum += s.at((at * 2 * r + t) * r + i) * s.at((at * 2 * r + t) * r + j);
                grams.set((at * r + i) * r + j, sum / static_cast<double>(2 * r));
            }
    return grams;
}

std::vector<std::int64_t> sizes() {
    if (watched()) return {1, 5, 33};
    if (instrumented()) return {1, 2, 17, 130};
    return {1, 2, 17, 64, 130, 300};
}

TEST(Cholesky, FactorsEveryMatrix) {
    constexpr double damping = 0.25;
    for (const std::int64_t r : sizes()) {
        const std::int64_t k = r > 100 ? 1 : 3;
        const HostTensor grams = grams_of(k, r), factors = grams.clone(),
                         defects(DType::f64, {k}, Values(static_cast<std::size_t>(k), 7.0));
        kernels::cholesky(factors, damping, defects);
        EXPECT_EQ(defects.values(), Values(static_cast<std::size_t>(k), 0.0)) << r;
        HostTensor products(DType::f64, {k, r, r}), expected = grams.clone();
        for (std::int64_t at = 0; at < k; ++at)
            for (std::int64_t i = 0; i < r; ++i) {
                const auto u = [&](std::int64_t row, std::int64_t column) {
                    return factors.at((at * r + row) * r + column);
                };
                EXPECT_GT(u(i, i), 0);
                for (std::int64_t j = 0; j < i; ++j) EXPECT_EQ(u(i, j), u(j, i)) << "both triangles";
                for (std::int64_t j = 0; j < r; ++j) {
                    double sum = 0;
                    for (std::int64_t t = 0; t <= std::min(i, j); ++t) sum += u(t, i) * u(t, j);
                    products.set((at * r + i) * r + j, sum);
                }
                expected.set((at * r + i) * r + i, grams.at((at * r + i) * r + i) + damping);
            }
        EXPECT_TRUE(close(products, expected.values(), 8, r)) << r;
    }
}

TEST(Cholesky, NamesThePivotOfAMatrixThatIsNotPositiveDefinite) {
    const double nan = std::numeric_limits<double>::quiet_NaN(),
                 infinity = std::numeric_limits<double>::infinity();
    // Of rank 1; negative; with a number that is not finite; zero; and one that is positive definite.
    const HostTensor grams(DType::f64, {5, 2, 2},
                           {1, 1, 1, 1, 4, 0, 0, -1, nan, 0, 0, 1, infinity, 0, 0, 1, 2, 1, 1, 2}),
        damped = grams.clone(), defects(DType::f64, {5});
    kernels::cholesky(grams, 0, defects);
    EXPECT_EQ(defects.values(), (Values{2, 2, 1, 1, 0}));
    kernels::cholesky(damped, 1.5, defects);
    EXPECT_EQ(defects.values(), (Values{0, 0, 1, 1, 0}));
}

/// x gram, with the damping.
Values times(const HostTensor& x, std::int64_t row, const HostTensor& gram, std::int64_t r, double damping) {
    Values product;
    for (std::int64_t j = 0; j < r; ++j) {
        double sum = damping * x.at(row * r + j);
        for (std::int64_t i = 0; i < r; ++i) sum += x.at(row * r + i) * gram.at(i * r + j);
        product.push_back(sum);
    }
    return product;
}

/// Some rows of two matrices in one call, one of them by a list; others are not touched.
TEST(SolveRows, GivesBackWhatWasMultiplied) {
    constexpr double damping = 0.5;
    for (const DType dtype : compute_types)
        for (const std::int64_t r : sizes()) {
            const std::int64_t rows = watched() ? 9 : 37;
            const HostTensor grams = grams_of(2, r), factors = grams.clone(), defects(DType::f64, {2});
            kernels::cholesky(factors, damping, defects);
            const HostTensor solution = HostTensor::normal(DType::f64, {rows, r}, "solution"),
                             listed = HostTensor::integers({3}, {5, 0, 7});
            HostTensor first(dtype, {rows, r}), second(dtype, {rows, r});
            const Values both = grams.values();
            const HostTensor gram_1(DType::f64, {r, r}, Values(both.begin() + r * r, both.end()));
            for (std::int64_t i = 0; i < rows; ++i) {
                const Values a = times(solution, i, grams, r, damping),
                             b = times(solution, i, gram_1, r, damping);
                for (std::int64_t j = 0; j < r; ++j) {
                    first.set(i * r + j, a[static_cast<std::size_t>(j)]);
                    second.set(i * r + j, b[static_cast<std::size_t>(j)]);
                }
            }
            const Values before_1 = first.values(), before_2 = second.values();
            const Tensor all = factors;
            const std::vector<kernels::DividedRows> items{
                {all.rows(0, 1).reshape({r, r}),
                 kernels::whole_rows(first, kernels::Rows::range(2, rows - 3))},
                {all.rows(1, 1).reshape({r, r}), kernels::whole_rows(second, kernels::Rows::range(0, 0))},
                {all.rows(1, 1).reshape({r, r}), kernels::whole_rows(second, kernels::Rows::listed(listed))}};
            kernels::solve_rows(items);
            Values expected_1 = before_1, expected_2 = before_2;
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < r; ++j) {
                    const auto at = static_cast<std::size_t>(i * r + j);
                    if (i >= 2 && i < rows - 1) expected_1[at] = solution.at(i * r + j);
                    if (i == 5 || i == 0 || i == 7) expected_2[at] = solution.at(i * r + j);
                }
            // The numbers that were multiplied are rounded to the type, and gram + 0.5 is well conditioned.
            EXPECT_TRUE(close(first, expected_1, 16, r)) << name_of(dtype) << " " << r;
            EXPECT_TRUE(close(second, expected_2, 16, r)) << name_of(dtype) << " " << r;
            for (const std::int64_t row : {std::int64_t{0}, std::int64_t{1}, rows - 1})
                EXPECT_EQ(first.at(row * r), before_1[static_cast<std::size_t>(row * r)]);
        }
    kernels::solve_rows({});
}

TEST(SolveRows, RefusesOtherShapes) {
    const HostTensor factor(DType::f64, {3, 3}), rows(DType::f32, {4, 4}), large(DType::f64, {1, 1025, 1025}),
        one(DType::f64, {1});
    const std::vector<kernels::DividedRows> wrong{{factor, kernels::whole_rows(rows)}};
    EXPECT_THROW(kernels::solve_rows(wrong), InternalError);
    EXPECT_THROW(kernels::cholesky(large, 0, one), InternalError);
}

}  // namespace cholesky_test
}  // namespace switchyard::test

// BACK ENDS: all
// The checks of the self-test pass on this back end, and see a wrong value wherever it is; the verdicts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "selftest/kernel_checks.hpp"
#include "selftest/line.hpp"

namespace switchyard::selftest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan = std::numeric_limits<double>::quiet_NaN();

TEST(KernelChecks, PassHere) {
    for (const KernelCheck& check : kernel_checks())
        for (DType dtype : {DType::f32, DType::bf16, DType::f64})
            for (const Comparison& c : check.run(dtype)) {
                EXPECT_LE(share_of_tolerance(c), 1)
                    << check.name << ", " << c.what << ", " << switchyard::name_of(dtype);
                EXPECT_FALSE(c.got.empty()) << check.name << ", " << c.what;
            }
}

/// Whichever element it is, and by little more than is allowed.
TEST(KernelChecks, SeeOneWrongValue) {
    for (const KernelCheck& check : kernel_checks())
        for (DType dtype : {DType::f32, DType::bf16, DType::f64})
            for (const Comparison& right : check.run(dtype)) {
                double largest = 0;
                for (double value : right.expected) largest = std::max(largest, std::fabs(value));
                ASSERT_GT(largest, 0) << check.name << ", " << right.what;
                for (std::size_t at :
                     {std::size_t{0}, right.expected.size() / 2, right.expected.size() - 1}) {
                    Comparison wrong = right;
                    wrong.expected[at] = right.got[at] + (right.tolerance > 0 ? 2 * right.tolerance * largest
                                                                              : 1e-6 * largest);
                    EXPECT_GT(share_of_tolerance(wrong), 1) << check.name << ", " << right.what;
                    wrong = right;
                    wrong.got[at] = nan;  // what no kernel wrote
                    EXPECT_EQ(share_of_tolerance(wrong), infinity) << check.name << ", " << right.what;
                }
            }
}

TEST(Comparison, SharesOfTheTolerance) {
    EXPECT_EQ(share_of_tolerance({"", {1, 2}, {1, 2}, 0}), 0);
    EXPECT_EQ(share_of_tolerance({"", {1, 2}, {1, 2.5}, 0}), infinity);
    EXPECT_DOUBLE_EQ(share_of_tolerance({"", {1, 2}, {1.5, 2}, 0.125}), 2);  // 0.5 of 0.125 * 2
    EXPECT_EQ(share_of_tolerance({"", {1}, {1, 2}, 1}), infinity);
    EXPECT_EQ(share_of_tolerance({"", {1, 2}, {1, nan}, 1}), infinity);
    EXPECT_EQ(share_of_tolerance({"", {infinity}, {infinity}, 1}), infinity);
    EXPECT_EQ(share_of_tolerance({"", {1}, {0}, 1}), infinity);
}

TEST(Verdicts, OfErrorsAndRates) {
    EXPECT_EQ(verdict_of_error(0), Verdict::ok);
    EXPECT_EQ(verdict_of_error(1), Verdict::ok);
    EXPECT_EQ(verdict_of_error(1.01), Verdict::failed);
    EXPECT_EQ(verdict_of_error(nan), Verdict::failed);
    EXPECT_EQ(verdict_of_rate(2, 1), Verdict::ok);
    EXPECT_EQ(verdict_of_rate(0.99, 1), Verdict::slow);
    EXPECT_EQ(verdict_of_rate(nan, 1), Verdict::slow);
    EXPECT_EQ(worse(Verdict::slow, Verdict::ok), Verdict::slow);
    EXPECT_EQ(worse(Verdict::slow, Verdict::failed), Verdict::failed);
    EXPECT_STREQ(name_of(Verdict::failed), "failed");
}

TEST(Verdicts, OfRanksBesideEachOther) {
    const double even[] = {100, 95, 105, 98}, one_slow[] = {100, 101, 69, 99}, broken[] = {100, nan, 100};
    EXPECT_EQ(verdict_of_rates(spread_of(even)), Verdict::ok);
    const Spread spread = spread_of(one_slow);
    EXPECT_EQ(verdict_of_rates(spread), Verdict::slow);
    EXPECT_EQ(spread.least, 69);
    EXPECT_EQ(spread.least_rank, 2);
    EXPECT_EQ(spread.median, 99.5);
    EXPECT_EQ(spread.most, 101);
    EXPECT_EQ(spread.most_rank, 1);
    EXPECT_EQ(verdict_of_rates(spread_of(broken)), Verdict::slow);
    EXPECT_EQ(spread_of(broken).least_rank, 1);
    EXPECT_EQ(verdict_of_rates(spread_of(std::span(even, 1))), Verdict::ok);
    EXPECT_EQ(spread_of({}).most, 0);
}

}  // namespace
}  // namespace switchyard::selftest

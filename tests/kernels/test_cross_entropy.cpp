// Vocab-parallel cross-entropy: any split of the vocabulary, with padded rows and ignored targets, gives the
// result of one softmax over the whole vocabulary; the gradient by central differences.
#include "kernels/cross_entropy.hpp"
#include "reference/cross_entropy.hpp"
#include "support/grad_check.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace cross_entropy_test {

using kernels::VocabRange;

struct Case {
    DType dtype;
    std::int64_t tokens, vocab, parts;
};

/// Logits (padded, n) of one part of the vocabulary, taken from (n, vocab); padding holds values that must
/// not count.
HostTensor local_logits(const HostTensor& logits, std::int64_t n, std::int64_t vocab, VocabRange range,
                        std::int64_t padded) {
    HostTensor local(logits.dtype(), {padded, n});
    for (std::int64_t j = 0; j < padded; ++j)
        for (std::int64_t i = 0; i < n; ++i)
            local.set(j * n + i, j < range.count ? logits.at(i * vocab + range.begin + j) : 1e4);
    return local;
}

/// All steps for one chunk on `parts` ranks.
struct Split {
    std::vector<VocabRange> ranges;
    std::vector<HostTensor> logits;  // (padded, n); d_logits after backward
    HostTensor lse;
    double loss = 0;

    Split(const HostTensor& whole, Tensor targets, std::int64_t parts, double scale) {
        const std::int64_t n = static_cast<Tensor>(whole).dim(0), vocab = static_cast<Tensor>(whole).dim(1);
        const std::int64_t padded = ((vocab + parts - 1) / parts + 15) / 16 * 16;
        const DType wide = accumulate_type(whole.dtype());
        HostTensor stats(wide, {parts, 3, n});
        lse = HostTensor(wide, {n});
        for (std::int64_t p = 0; p < parts; ++p) {
            const std::int64_t begin = std::min(vocab, p * padded);
            ranges.push_back({begin, std::min(padded, vocab - begin)});
            logits.push_back(local_logits(whole, n, vocab, ranges.back(), padded));
            kernels::softmax_statistics(logits.back(), targets, ranges.back(),
                                        static_cast<Tensor>(stats).rows(p, 1).reshape({3, n}));
        }
        HostTensor sum(DType::f64, {1}, {7});  // the loss is added to this value
        kernels::combine_statistics(stats, targets, lse, sum);
        loss = sum.at(0) - 7;
        for (std::int64_t p = 0; p < parts; ++p)
            kernels::cross_entropy_backward(logits[p], lse, targets, ranges[p], scale);
    }
};

class CrossEntropy : public ::testing::TestWithParam<Case> {};

TEST_P(CrossEntropy, EqualsTheUnsplitSoftmax) {
    const auto [dtype, n, vocab, parts] = GetParam();
    const double scale = 0.25;
    const HostTensor logits = HostTensor::normal(dtype, {n, vocab}, "logits", 5);
    std::vector<std::int32_t> targets;
    for (std::int64_t i = 0; i < n; ++i)
        targets.push_back(i % 4 == 1 ? -1 : static_cast<std::int32_t>(uniform_below(9, i, vocab)));
    const HostTensor target_tensor = HostTensor::integers({n}, targets);
    const auto expected = reference::cross_entropy(logits.values(), targets, scale);

    const Split split(logits, target_tensor, parts, scale);
    // Exponentials, then additions one by one: the error is below sqrt(vocab) eps of the sum.
    EXPECT_TRUE(close(split.lse, expected.lse, 2, vocab));
    const DType wide = accumulate_type(dtype);
    EXPECT_NEAR(split.loss, expected.loss,
                (std::fabs(expected.loss) + 20.0 * n) * tolerance(wide, wide, 2, vocab));
    for (std::int64_t p = 0; p < parts; ++p) {
        const auto [begin, count] = split.ranges[p];
        const std::int64_t padded = static_cast<Tensor>(split.logits[p]).dim(0);
        Values local(static_cast<std::size_t>(padded * n));
        for (std::int64_t j = 0; j < count; ++j)
            for (std::int64_t i = 0; i < n; ++i) local[j * n + i] = expected.d_logits[i * vocab + begin + j];
        EXPECT_TRUE(close(split.logits[p], local, 20, 1));  // lse is about 20: its rounding alone is 20 eps
        for (std::int64_t j = 0; j < padded; ++j)
            for (std::int64_t i = 0; i < n; ++i)
                if (j >= count || targets[i] < 0) {
                    ASSERT_EQ(split.logits[p].at(j * n + i), 0) << "token " << i << " row " << j;
                }
    }
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types) {
        for (std::int64_t parts : {1, 2, 3, 7})
            cases.push_back({dtype, 9, 77, parts});  // with seven parts the last ranks hold nothing
        cases.push_back({dtype, 16, 300, 2});        // tokens that fill vectors
        cases.push_back({dtype, 0, 10, 2});
        cases.push_back({dtype, 5, 1, 1});
        cases.push_back({dtype, 6, 9001, 2});
    }
    return cases;
}
INSTANTIATE_TEST_SUITE_P(Types, CrossEntropy, ::testing::ValuesIn(cases()));

/// Statistics and log-sum-exp of one token.
struct OneToken {
    HostTensor logits, targets, stats, lse = HostTensor(DType::f32, {1});
    double loss = 0;
    OneToken(DType dtype, const Values& values, std::int32_t target)
        : logits(dtype, {static_cast<std::int64_t>(values.size()), 1}, values),
          targets(HostTensor::integers({1}, {target})),
          stats(DType::f32, {1, 3, 1}) {
        kernels::softmax_statistics(logits, targets, range(), static_cast<Tensor>(stats).reshape({3, 1}));
        HostTensor sum(DType::f64, {1});
        kernels::combine_statistics(stats, targets, lse, sum);
        loss = sum.at(0);
    }
    VocabRange range() const { return {0, static_cast<Tensor>(logits).dim(0)}; }
};

TEST(CrossEntropySums, LongOnesKeepTheirAccuracy) {
    // 100 001 equal logits: f32 sums with accumulated errors would drift.
    const OneToken token(DType::f32, Values(100001, 0.3), 7);
    EXPECT_EQ(token.stats.at(1), 100001);
    EXPECT_NEAR(token.loss, std::log(100001.0), 1e-6);
}

TEST(CrossEntropySums, AreTakenRelativeToTheMaximum) {
    for (double shift : {-500.0, 500.0}) {  // exp(shift) is outside f32
        const OneToken token(DType::f32, {shift, shift + 1, shift - 2}, 1);
        EXPECT_NEAR(token.loss, std::log(1 + std::exp(-1) + std::exp(-3)), 1e-6);
    }
}

TEST(CrossEntropySums, FollowARisingMaximum) {
    Values logits;
    double sum = 0;
    for (int j = 0; j < 2000; ++j)
        logits.push_back(j * 0.5);  // each strip's maximum is far above the last one's
    for (double logit : logits) sum += std::exp(logit - logits.back());
    const OneToken token(DType::f32, logits, 1999);
    EXPECT_NEAR(token.loss, std::log(sum), 1e-6);
}

TEST(CrossEntropySums, SureTokensKeepTheirGradient) {
    // softmax(target) = 0.998 has no neighbour in bf16 closer than 0.002, so the gradient must be rounded
    // after the subtraction.
    OneToken token(DType::bf16, {6.25, 0}, 0);
    kernels::cross_entropy_backward(token.logits, token.lse, token.targets, token.range(), 1);
    const double other = 1 / (1 + std::exp(6.25));
    EXPECT_NEAR(token.logits.at(0), -other, other * eps_of(DType::bf16));
    EXPECT_NEAR(token.logits.at(1), other, other * eps_of(DType::bf16));
}

TEST(CrossEntropySums, NotANumberReachesTheLoss) {
    for (double bad : {NAN, INFINITY, -INFINITY}) {
        const Values logits = bad > 0 || std::isnan(bad) ? Values{0, bad, 1} : Values{bad, bad, bad};
        EXPECT_FALSE(std::isfinite(OneToken(DType::f32, logits, 0).loss)) << bad;
    }
}

TEST(CrossEntropyGradient, PassesCentralDifferences) {
    const std::int64_t n = 4, vocab = 21;  // two or three ranks of 16 rows; the last one is empty
    HostTensor logits = HostTensor::normal(DType::f64, {n, vocab}, "logits");
    const HostTensor targets = HostTensor::integers({n}, {5, -1, 0, 19});
    const double scale = 0.5;
    for (std::int64_t parts : {1, 2, 3}) {
        if (watched() && parts != 2) continue;
        const Split split(logits, targets, parts, scale);
        HostTensor gradient(DType::f64, {n, vocab});
        for (std::int64_t i = 0; i < n * vocab; ++i) {
            const std::int64_t row = i % vocab, padded = static_cast<Tensor>(split.logits[0]).dim(0);
            const HostTensor& local = split.logits[static_cast<std::size_t>(row / padded)];
            gradient.set(i, local.at(row % padded * n + i / vocab));
        }
        EXPECT_TRUE(gradient_matches(logits, gradient,
                                     [&] { return scale * Split(logits, targets, parts, scale).loss; }))
            << parts << " ranks";
    }
}

}  // namespace cross_entropy_test
}  // namespace switchyard::test

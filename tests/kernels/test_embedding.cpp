// Vocab-parallel embedding against its formula in all compute types, with tokens of other ranks and padded
// rows.
#include <omp.h>

#include "kernels/embedding.hpp"
#include "reference/embedding.hpp"
#include "support/grad_check.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace embedding_test {

struct Case {
    DType dtype;
    std::int64_t tokens, width;
};

constexpr std::int64_t vocab = 23, padded = 16;

std::vector<std::int32_t> some_tokens(std::int64_t n) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = 0; i < n; ++i)
        tokens.push_back(static_cast<std::int32_t>(
            uniform_below(stream_key(2, "tokens"), static_cast<std::uint64_t>(i), vocab)));
    return tokens;
}

class Embedding : public ::testing::TestWithParam<Case> {};

TEST_P(Embedding, RangesTogetherEqualTheWholeTable) {
    const auto [dtype, n, width] = GetParam();
    const auto tokens = some_tokens(n);
    const HostTensor list = HostTensor::integers({n}, tokens);
    const HostTensor d_x = HostTensor::normal(dtype, {n, width}, "d_x");
    for (std::int64_t begin : {std::int64_t{0}, padded}) {
        const std::int64_t count = std::min(padded, vocab - begin);
        const reference::TableRows rows{begin, count, static_cast<std::size_t>(width)};
        const HostTensor table = HostTensor::normal(dtype, {padded, width}, "table" + std::to_string(begin));
        HostTensor x = HostTensor::normal(dtype, {n, width}, "overwritten");
        kernels::embedding_forward(list, table, {begin, count}, x);
        EXPECT_EQ(x.values(), reference::embed(tokens, table.values(), rows));

        HostTensor d_table = HostTensor::normal(accumulate_type(dtype), {padded, width}, "d_table");
        Values expected = d_table.values();
        reference::add_embedding_gradient(tokens, d_x.values(), rows, expected);
        kernels::embedding_backward(list, d_x, {begin, count}, d_table);
        EXPECT_TRUE(close(d_table, expected, 2, n));
    }
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types)
        for (auto [tokens, width] : {std::pair{0, 8}, {1, 1}, {37, 5}, {watched() ? 20 : 200, 130}})
            cases.push_back({dtype, tokens, width});
    cases.push_back({DType::bf16, 1100, 16});  // more tokens than a back end may look at together
    return cases;
}
INSTANTIATE_TEST_SUITE_P(Types, Embedding, ::testing::ValuesIn(cases()));

TEST(EmbeddingGradient, IsSummedInTokenOrderOnAnyNumberOfThreads) {
    // 1e8 + 1 - 1e8 - ... in f32: only summation in token order gives these bits.
    const std::int64_t n = watched() ? 31 : 301, width = 200;
    HostTensor d_x(DType::f32, {n, width});
    for (std::int64_t i = 0; i < d_x.size(); ++i)
        d_x.set(i, normal(4, static_cast<std::uint64_t>(i)) * (i / width % 3 == 0 ? 1e8 : 1));
    const HostTensor tokens = HostTensor::integers({n}, std::vector<std::int32_t>(n, 1));
    HostTensor in_order(DType::f32, {2, width});
    for (std::int64_t j = 0; j < width; ++j) {
        float sum = 0;
        for (std::int64_t i = 0; i < n; ++i) sum += static_cast<float>(d_x.at(i * width + j));
        in_order.set(width + j, sum);
    }
    const int threads = omp_get_max_threads();
    for (int count : {1, 2, 3, 7}) {
        omp_set_num_threads(count);
        HostTensor d_table(DType::f32, {2, width});
        kernels::embedding_backward(tokens, d_x, {0, 2}, d_table);
        EXPECT_TRUE(same_bits(d_table, in_order)) << count << " threads";
    }
    omp_set_num_threads(threads);
}

TEST(EmbeddingGradient, PassesCentralDifferences) {
    const HostTensor tokens = HostTensor::integers({4}, {2, 0, 2, 5});
    HostTensor table = HostTensor::normal(DType::f64, {4, 3}, "table"), x(DType::f64, {4, 3}),
               d_table(DType::f64, {4, 3});
    const HostTensor d_x = HostTensor::normal(DType::f64, {4, 3}, "d_x");
    kernels::embedding_backward(tokens, d_x, {0, 4}, d_table);
    EXPECT_TRUE(gradient_matches(table, d_table, [&] {
        kernels::embedding_forward(tokens, table, {0, 4}, x);
        return dot(d_x, x);
    }));
}

}  // namespace embedding_test
}  // namespace switchyard::test

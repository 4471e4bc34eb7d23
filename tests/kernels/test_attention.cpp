// Attention against its formula in all compute types, with lengths around the tiles of 128 queries and the
// panels of 512 keys, grouped heads and documents; what a token must not see; its gradient by central
// differences.
#include "core/backend_memory.hpp"
#include "core/processor.hpp"
#include "kernels/attention.hpp"
#include "kernels/matmul.hpp"
#include "reference/attention.hpp"
#include "support/grad_check.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace attention_test {

struct Sizes {
    std::int64_t batch, tokens, heads, kv_heads, size;
};
enum class Documents { one, several };

/// Why a test with many or long runs is left out where a sanitizer watches.
constexpr const char* same_kernels = "Attention.EqualsFormula runs the same kernels on fewer tokens";

/// First token of each token's document: documents of 1, 2, 3, ... 70 tokens, then 1 token again, shifted by
/// sequence.
std::vector<std::int32_t> document_starts(const Sizes& s) {
    std::vector<std::int32_t> first;
    for (std::int64_t b = 0; b < s.batch; ++b) {
        std::int64_t start = 0, length = 1 + 3 * b;
        for (std::int64_t t = 0; t < s.tokens; ++t) {
            if (t == start + length) start = t, length = length % 70 + 1;
            first.push_back(static_cast<std::int32_t>(start));
        }
    }
    return first;
}

/// Inputs and outputs of one attention; outputs are NaN before the calls, which overwrite them.
struct Problem {
    Sizes sizes;
    std::vector<std::int32_t> first;
    HostTensor q, k, v, d_o, first_key;
    HostTensor o, lse, d_q, d_k, d_v, scratch;

    Problem(DType dtype, const Sizes& s, Documents documents, double scale = 1)
        : sizes(s),
          q(HostTensor::normal(dtype, {s.batch, s.tokens, s.heads, s.size}, "q", scale)),
          k(HostTensor::normal(dtype, {s.batch, s.tokens, s.kv_heads, s.size}, "k", scale)),
          v(HostTensor::normal(dtype, {s.batch, s.tokens, s.kv_heads, s.size}, "v")),
          d_o(HostTensor::normal(dtype, {s.batch, s.tokens, s.heads, s.size}, "d_o")),
          o(nan(dtype, {s.batch, s.tokens, s.heads, s.size})),
          lse(nan(accumulate_type(dtype), {s.batch, s.heads, s.tokens})),
          d_q(o.clone()),
          d_k(nan(dtype, {s.batch, s.tokens, s.kv_heads, s.size})),
          d_v(d_k.clone()),
          scratch(scratch_of(kernels::attention_scratch_bytes(q.shape(), k.shape(), dtype))) {
        if (documents == Documents::several) {
            first = document_starts(s);
            first_key = HostTensor::integers({s.batch, s.tokens}, first);
        }
    }
    static HostTensor nan(DType dtype, Shape shape) {
        HostTensor x(dtype, shape);
        for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, NAN);
        return x;
    }
    void forward() { kernels::attention_forward(q, k, v, first_key, o, lse, scratch); }
    kernels::AttentionBackward arguments() const {
        return {.d_o = d_o,
                .q = q,
                .k = k,
                .v = v,
                .o = o,
                .lse = lse,
                .first_key = first_key,
                .d_q = d_q,
                .d_k = d_k,
                .d_v = d_v,
                .scratch = scratch};
    }
    void run() {
        forward();
        kernels::attention_backward(arguments());
    }
    reference::Attention expected() const { return formula(d_o.values()); }
    Values expected_o() const { return formula({}).o; }
    reference::Attention formula(const Values& with_d_o) const {
        const auto count = [](std::int64_t x) { return static_cast<std::size_t>(x); };
        const Values q_values = q.values(), k_values = k.values(), v_values = v.values();
        return reference::AttentionFormula({count(sizes.batch), count(sizes.tokens), count(sizes.heads),
                                            count(sizes.kv_heads), count(sizes.size)},
                                           q_values, k_values, v_values, first)
            .run(with_d_o);
    }
    /// Changes the values at one token of every sequence.
    void change_token(std::int64_t token) { change_token(token, {&q, &k, &v, &d_o}); }
    void change_token(std::int64_t token, std::initializer_list<HostTensor*> tensors) {
        for (HostTensor* x : tensors) {
            const std::int64_t row = x->size() / (sizes.batch * sizes.tokens);
            for (std::int64_t b = 0; b < sizes.batch; ++b)
                for (std::int64_t j = 0; j < row; ++j) {
                    const std::int64_t at = (b * sizes.tokens + token) * row + j;
                    x->set(at, 3 - 2 * x->at(at));
                }
        }
    }
};

struct Case {
    DType dtype;
    Sizes sizes;
    Documents documents;
};
std::string name(const ::testing::TestParamInfo<Case>& info) {
    const auto& [dtype, s, documents] = info.param;
    return fmt::format("{}_b{}_t{}_h{}_k{}_d{}{}", name_of(dtype), s.batch, s.tokens, s.heads, s.kv_heads,
                       s.size, documents == Documents::several ? "_documents" : "");
}

class Attention : public ::testing::TestWithParam<Case> {};

TEST_P(Attention, EqualsFormula) {
    const auto& [dtype, sizes, documents] = GetParam();
    Problem x(dtype, sizes, documents);
    x.run();
    const reference::Attention expected = x.expected();
    const std::int64_t n = sizes.tokens + sizes.size;
    EXPECT_TRUE(close(x.lse, expected.lse, 2, n));
    EXPECT_TRUE(close(x.o, expected.o, 2, n));
    EXPECT_TRUE(close(x.d_q, expected.d_q, 2, n));
    EXPECT_TRUE(close(x.d_k, expected.d_k, 2, n));
    EXPECT_TRUE(close(x.d_v, expected.d_v, 2, n));
}

TEST_P(Attention, GivesTheSameBitsOnAnyNumberOfThreads) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    const auto& [dtype, sizes, documents] = GetParam();
    Problem one(dtype, sizes, documents);
    {
        const Threads scope(1);
        one.run();
    }
    const std::vector<int> counts =
        backend::processor().is_gpu ? std::vector{1} : std::vector{1, 2, 3};  // a GPU has threads of its own
    for (int threads : counts) {
        const Threads scope(threads);
        Problem x(dtype, sizes, documents);
        x.run();
        EXPECT_TRUE(same_bits(x.o, one.o)) << threads << " threads";
        EXPECT_TRUE(same_bits(x.lse, one.lse)) << threads << " threads";
        EXPECT_TRUE(same_bits(x.d_q, one.d_q)) << threads << " threads";
        EXPECT_TRUE(same_bits(x.d_k, one.d_k)) << threads << " threads";
        EXPECT_TRUE(same_bits(x.d_v, one.d_v)) << threads << " threads";
    }
}

/// True for cases that end within seconds where ThreadSanitizer watches.
bool is_short(const Case& c) {
    const auto& [batch, tokens, heads, kv_heads, size] = c.sizes;
    return batch * tokens * heads * size <= 16000 &&
           (c.dtype == DType::bf16 || c.documents == Documents::several);
}

std::vector<Case> cases() {
    std::vector<Case> cases;
    for (DType dtype : compute_types)
        for (Documents documents : {Documents::one, Documents::several})
            for (const Sizes& sizes : {Sizes{1, 1, 1, 1, 1},
                                       {2, 2, 2, 1, 3},
                                       {2, 17, 4, 2, 5},
                                       {1, 64, 3, 3, 16},
                                       {1, 65, 6, 2, 9},
                                       {2, 128, 2, 2, 64},
                                       {2, 130, 12, 4, 7},  // several tiles, parts by group alone
                                       {2, 200, 8, 8, 21},  // one part
                                       {1, 512, 1, 1, 32},  // segments
                                       {1, 530, 4, 2, 17},  // groups and segments, two panels
                                       {2, 33, 2, 1, 8},  // head sizes padded for tensor cores, from here on
                                       {1, 130, 2, 1, 48},
                                       {1, 70, 3, 1, 40},
                                       {1, 97, 2, 1, 80},
                                       {1, 65, 1, 1, 88},
                                       {1, 150, 2, 1, 128},
                                       {0, 16, 2, 1, 8}})
                if (const Case next{dtype, sizes, documents}; !watched() || is_short(next))
                    cases.push_back(next);
    return cases;
}
INSTANTIATE_TEST_SUITE_P(Types, Attention, ::testing::ValuesIn(cases()), name);

/// True if rows of x (B, T, ...) at tokens [begin, end) have the bits of y's.
::testing::AssertionResult same_tokens(const HostTensor& x, const HostTensor& y, std::int64_t begin,
                                       std::int64_t end) {
    const Tensor a = x, b = y;
    for (std::int64_t sequence = 0; sequence < a.dim(0); ++sequence) {
        const auto part = [&](Tensor t) {
            return t.rows(sequence, 1).reshape({t.dim(1), t.dim(2) * t.dim(3)}).rows(begin, end - begin);
        };
        if (const auto result = same_bits(part(a), part(b)); !result)
            return ::testing::AssertionFailure() << "tokens " << begin << " to " << end << " of sequence "
                                                 << sequence << ": " << result.message();
    }
    return ::testing::AssertionSuccess();
}

class AttentionMask : public ::testing::TestWithParam<DType> {};

TEST_P(AttentionMask, ALaterTokenChangesNothingBefore) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    const Sizes sizes{1, 600, 2, 1, 24};
    Problem before(GetParam(), sizes, Documents::one);
    before.run();
    for (std::int64_t token : {1, 63, 128, 300, 511, 512, 599}) {
        Problem after(GetParam(), sizes, Documents::one);
        after.change_token(token);
        after.run();
        EXPECT_TRUE(same_tokens(after.o, before.o, 0, token)) << "token " << token;
        EXPECT_TRUE(same_tokens(after.d_q, before.d_q, 0, token)) << "token " << token;
        EXPECT_FALSE(same_tokens(after.o, before.o, token, token + 1)) << "token " << token;
        for (std::int64_t head = 0; head < sizes.batch * sizes.heads; ++head)
            for (std::int64_t t = 0; t < token; ++t) {
                const std::int64_t at = head * sizes.tokens + t;
                ASSERT_EQ(after.lse.at(at), before.lse.at(at))
                    << "lse of token " << t << ", changed " << token;
            }
    }
}

TEST_P(AttentionMask, AQueryAddsNothingToKeysThatItDoesNotSee) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    const Sizes sizes{1, 600, 2, 1, 24};
    Problem before(GetParam(), sizes, Documents::one);
    before.run();
    for (std::int64_t token : {0, 64, 127, 128, 300, 511, 598}) {
        Problem after(GetParam(), sizes, Documents::one);
        after.change_token(token, {&after.q, &after.d_o});
        after.run();
        EXPECT_TRUE(same_tokens(after.d_k, before.d_k, token + 1, sizes.tokens)) << "token " << token;
        EXPECT_TRUE(same_tokens(after.d_v, before.d_v, token + 1, sizes.tokens)) << "token " << token;
        EXPECT_FALSE(same_tokens(after.d_v, before.d_v, token, token + 1)) << "token " << token;
    }
}

TEST_P(AttentionMask, ADocumentDoesNotSeeItsNeighbours) {
    if (watched()) GTEST_SKIP() << same_kernels;
    const Sizes sizes{1, 600, 2, 1, 24};
    const std::int64_t begin = 140, end = 530;
    std::vector<std::int32_t> first;
    for (std::int64_t t = 0; t < sizes.tokens; ++t)
        first.push_back(static_cast<std::int32_t>(t < begin ? 0 : t < end ? begin : end));
    const auto run = [&](std::initializer_list<std::int64_t> changed) {
        Problem x(GetParam(), sizes, Documents::one);
        x.first_key = HostTensor::integers({1, sizes.tokens}, first);
        for (std::int64_t token : changed) x.change_token(token);
        x.run();
        return x;
    };
    const Problem before = run({}), after = run({0, 77, begin - 1, end, 599});
    EXPECT_TRUE(same_tokens(after.o, before.o, begin, end));
    EXPECT_TRUE(same_tokens(after.d_q, before.d_q, begin, end));
    EXPECT_TRUE(same_tokens(after.d_k, before.d_k, begin, end));
    EXPECT_TRUE(same_tokens(after.d_v, before.d_v, begin, end));
    EXPECT_FALSE(same_tokens(after.o, before.o, 0, begin));
    EXPECT_FALSE(same_tokens(after.o, before.o, end, sizes.tokens));
}

TEST_P(AttentionMask, OneListServesAllSequences) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    // A sliding window of 150 tokens, and one that moves in jumps.
    const Sizes sizes{3, 400, 4, 2, 24};
    for (std::int32_t leap : {1, 60}) {
        std::vector<std::int32_t> first, of_all;
        for (std::int32_t t = 0; t < sizes.tokens; ++t) first.push_back(std::max(0, t - 149) / leap * leap);
        for (std::int64_t b = 0; b < sizes.batch; ++b)
            of_all.insert(of_all.end(), first.begin(), first.end());
        Problem one(GetParam(), sizes, Documents::one), each(GetParam(), sizes, Documents::one);
        one.first_key = HostTensor::integers({sizes.tokens}, first);
        each.first_key = HostTensor::integers({sizes.batch, sizes.tokens}, of_all);
        each.first = of_all;
        one.run();
        each.run();
        for (auto result : {&Problem::o, &Problem::lse, &Problem::d_q, &Problem::d_k, &Problem::d_v})
            EXPECT_TRUE(same_bits(one.*result, each.*result));
        EXPECT_TRUE(close(one.o, each.expected_o(), 2, sizes.tokens + sizes.size));
    }
}
INSTANTIATE_TEST_SUITE_P(Types, AttentionMask, ::testing::ValuesIn(compute_types),
                         [](const auto& info) { return name_of(info.param); });

/// No weight exceeds one, so |d_v| of a key is at most the sum of |d_o| over all queries.
void expect_weights_below_one(const Problem& x) {
    const std::int64_t row = x.sizes.heads * x.sizes.size;
    for (std::int64_t j = 0; j < row; ++j) {
        double bound = 0;
        for (std::int64_t i = j; i < x.d_o.size(); i += row) bound += std::fabs(x.d_o.at(i));
        for (std::int64_t i = j; i < x.d_v.size(); i += row)
            ASSERT_LE(std::fabs(x.d_v.at(i)), 1.01 * bound) << "element " << i;
    }
}

TEST(AttentionLimits, VeryLargeScoresDoNotOverflow) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    // Scores of 1e6 to 1e30: the largest takes all the weight, so outputs are rows of v and gradients of
    // scores vanish.
    for (DType dtype : compute_types)
        for (double scale : {1e3, 1e8, 1e15})
            for (std::int64_t size : {16, 128}) {
                SCOPED_TRACE(fmt::format("{} scale {} head size {}", name_of(dtype), scale, size));
                Problem x(dtype, {1, 200, 2, 2, size}, Documents::one, scale);
                x.run();
                for (const HostTensor* t : {&x.o, &x.lse, &x.d_q, &x.d_k, &x.d_v})
                    for (std::int64_t i = 0; i < t->size(); ++i) ASSERT_TRUE(std::isfinite(t->at(i)));
                EXPECT_TRUE(close(x.o, x.expected_o(), 2, 200 + size));
                expect_weights_below_one(x);
            }
}

TEST(AttentionLimits, EqualScoresGiveTheMean) {
    if (watched()) GTEST_SKIP() << same_kernels;
    Problem x(DType::f32, {1, 600, 1, 1, 4}, Documents::one);
    for (std::int64_t i = 0; i < x.q.size(); ++i) x.q.set(i, 0);
    x.forward();
    for (std::int64_t t = 0; t < 600; ++t)
        EXPECT_NEAR(x.lse.at(t), std::log(static_cast<double>(t + 1)), 8 * eps_of(DType::f32));
    EXPECT_TRUE(close(x.o, x.expected_o(), 2, 600));
}

TEST(AttentionLimits, NotANumberIsNotLost) {
    for (DType dtype : compute_types)
        for (std::int64_t size : {4, 16}) {
            Problem x(dtype, {1, 8, 1, 1, size}, Documents::one);
            x.q.set(5 * size, NAN);
            x.run();
            EXPECT_TRUE(std::isnan(x.o.at(5 * size)));
            EXPECT_TRUE(std::isnan(x.d_q.at(5 * size)));
            EXPECT_TRUE(std::isnan(x.d_k.at(5 * size)));
            EXPECT_TRUE(std::isnan(x.d_v.at(5 * size)));
            EXPECT_FALSE(std::isnan(x.o.at(4 * size)));
            EXPECT_FALSE(std::isnan(x.d_v.at(6 * size)));
        }
}

TEST(AttentionLimits, TensorsMayBeginAtAnyElement) {
    // Each tensor in turn lies one element behind a multiple of 16 bytes.
    using Arguments = kernels::AttentionBackward;
    Problem x(DType::bf16, {1, 20, 2, 1, 16}, Documents::several);
    x.run();
    const reference::Attention expected = x.expected();
    for (Tensor Arguments::*member : {&Arguments::q, &Arguments::k, &Arguments::v, &Arguments::o,
                                      &Arguments::d_o, &Arguments::d_q, &Arguments::d_k, &Arguments::d_v}) {
        Arguments a = x.arguments();
        const Tensor aligned = a.*member;
        const HostTensor room(DType::bf16, {aligned.size() + 1});
        a.*member = Tensor(static_cast<Tensor>(room).data<bf16>() + 1, DType::bf16, aligned.shape());
        const auto move = [&](Tensor from, Tensor to) {
            std::vector<std::byte> values(from.bytes());
            kernels::download(from, values.data());
            kernels::upload(values.data(), to);
        };
        move(aligned, a.*member);
        kernels::attention_forward(a.q, a.k, a.v, a.first_key, a.o, a.lse, a.scratch);
        kernels::attention_backward(a);
        move(a.*member, aligned);
        const std::int64_t n = 20 + 16;
        EXPECT_TRUE(close(x.o, expected.o, 2, n));
        EXPECT_TRUE(close(x.d_q, expected.d_q, 2, n));
        EXPECT_TRUE(close(x.d_k, expected.d_k, 2, n));
        EXPECT_TRUE(close(x.d_v, expected.d_v, 2, n));
    }
}

TEST(AttentionMemory, DoesNotGrowWithTheSquareOfTheLength) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    // All weights (B, H, T, T) would be 128 MiB, on a GPU, which may be emulated, 32. A thread needs some 2
    // MiB for tiles of 128 queries by 512 keys; sums (T, D), two per unit of backward where a key-value head
    // has several, are 2 MiB.
    const std::int64_t tokens = backend::processor().is_gpu ? 2048 : 4096;
    for (std::int64_t kv_heads : {2, 1}) {
        Problem x(DType::f32, {1, tokens, 2, kv_heads, 4}, Documents::one);
        EXPECT_LT(static_cast<double>(x.scratch.num_bytes()), 3e6 * kernels::num_threads() + 2.1e6);
        x.run();  // allocates mirrors and scratch
        const double before = backend::used_bytes();
        backend::reset_peak_used_bytes();
        x.run();
        // Measured for the whole process, to which libraries add some MiB; the weights of one head have twice
        // that.
        EXPECT_LT(backend::peak_used_bytes() - before, 2 * tokens * tokens) << kv_heads << " key-value heads";
    }
}

void expect_gradient(const Sizes& sizes, Documents documents) {
    Problem x(DType::f64, sizes, documents);
    x.run();
    const HostTensor d_q = x.d_q.clone(), d_k = x.d_k.clone(), d_v = x.d_v.clone();
    const auto loss = [&] {
        x.forward();
        return dot(x.d_o, x.o);
    };
    EXPECT_TRUE(gradient_matches(x.q, d_q, loss));
    EXPECT_TRUE(gradient_matches(x.k, d_k, loss));
    EXPECT_TRUE(gradient_matches(x.v, d_v, loss));
}

TEST(AttentionGradient, PassesCentralDifferences) {
    if (instrumented()) GTEST_SKIP() << same_kernels;
    expect_gradient({2, 5, 4, 2, 3}, Documents::one);
    expect_gradient({2, 5, 4, 2, 3}, Documents::several);
    expect_gradient({1, 130, 2, 1, 1}, Documents::several);  // two tiles
}

TEST(AttentionShapes, AreChecked) {
    const Problem x(DType::f32, {2, 5, 4, 2, 3}, Documents::several);
    const auto forward = [&](Tensor q, Tensor k, Tensor v, Tensor start, Tensor o, Tensor lse) {
        EXPECT_THROW(kernels::attention_forward(q, k, v, start, o, lse, x.scratch), InternalError);
    };
    const HostTensor other(DType::f32, {2, 5, 3, 3}), longer(DType::f32, {2, 6, 2, 3}),
        wide(DType::f64, {2, 5, 4, 3}), wide_kv(DType::f64, {2, 5, 2, 3});
    forward(x.q, other, other, {}, x.o, x.lse);      // 4 heads on 3
    forward(x.q, x.k, other, {}, x.o, x.lse);        // k and v differ
    forward(x.q, longer, longer, {}, x.o, x.lse);    // another length
    forward(x.q, x.k, x.v, {}, x.k, x.lse);          // o
    forward(x.q, x.k, x.v, {}, wide, x.lse);         // type of o
    forward(x.q, wide_kv, wide_kv, {}, x.o, x.lse);  // type of k
    forward(x.q, x.k, x.v, {}, x.o, static_cast<Tensor>(x.lse).reshape({2, 20}));
    forward(x.q, x.k, x.v, static_cast<Tensor>(x.first_key).rows(0, 1), x.o, x.lse);
    EXPECT_THROW(kernels::attention_forward(x.q, x.k, x.v, {}, x.o, x.lse, {}), InternalError) << "scratch";
    EXPECT_THROW(kernels::attention_forward(x.q, x.k, x.v, {}, x.o, x.lse,
                                            static_cast<Tensor>(x.scratch).rows(0, x.scratch.size() - 8)),
                 InternalError);
    const auto backward = [&](Tensor kernels::AttentionBackward::*member, Tensor wrong) {
        kernels::AttentionBackward a = x.arguments();
        a.*member = wrong;
        EXPECT_THROW(kernels::attention_backward(a), InternalError);
    };
    using Arguments = kernels::AttentionBackward;
    for (auto member : {&Arguments::o, &Arguments::d_o, &Arguments::d_q}) {
        backward(member, x.k);
        backward(member, wide);
    }
    for (auto member : {&Arguments::d_k, &Arguments::d_v}) {
        backward(member, x.q);
        backward(member, wide_kv);
    }
}

}  // namespace attention_test
}  // namespace switchyard::test

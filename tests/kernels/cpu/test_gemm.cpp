// The strided product behind matmul, attention and frozen weights: views, calls inside parallel regions, and,
// on any CPU, the path through f32 for CPUs without a fast bf16 product.
#include <omp.h>

#include "kernels/cpu/gemm.hpp"
#include "reference/matmul.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

using kernels::Gemm;

enum class Path { chosen, widened };
struct Case {
    Path path;
    DType in, out;
};
std::string name(const ::testing::TestParamInfo<Case>& info) {
    return fmt::format("{}_{}{}", name_of(info.param.in), name_of(info.param.out),
                       info.param.path == Path::widened ? "_widened" : "");
}

struct Layout {
    std::int64_t m, n, k, a_gap, b_gap, c_gap;  // gap: elements between the end of a row and the next
    bool a_turned, b_turned;
};

/// One product on views with gaps. The gaps of a and b hold NaN; those of c hold numbers that must not
/// change.
struct Strided {
    Gemm gemm;
    Path path;
    HostTensor a, b, c;

    Strided(Case type, const Layout& l, float alpha, bool accumulate) : path(type.path) {
        const std::int64_t a_line = (l.a_turned ? l.m : l.k) + l.a_gap,
                           b_line = (l.b_turned ? l.k : l.n) + l.b_gap;
        gemm = {.m = l.m,
                .n = l.n,
                .k = l.k,
                .a_row = l.a_turned ? 1 : a_line,
                .a_col = l.a_turned ? a_line : 1,
                .b_row = l.b_turned ? 1 : b_line,
                .b_col = l.b_turned ? b_line : 1,
                .c_row = l.n + l.c_gap,
                .in = type.in,
                .out = type.out,
                .alpha = alpha,
                .accumulate = accumulate};
        a = HostTensor::normal(type.in, {l.a_turned ? l.k : l.m, a_line}, "a");
        b = HostTensor::normal(type.in, {l.b_turned ? l.n : l.k, b_line}, "b");
        c = HostTensor::normal(type.out, {l.m, gemm.c_row}, "c");
        fill_gaps(a, l.a_gap);
        fill_gaps(b, l.b_gap);
    }
    static void fill_gaps(HostTensor& x, std::int64_t gap) {
        const std::int64_t line = static_cast<Tensor>(x).dim(1);
        for (std::int64_t i = 0; i < x.size(); ++i)
            if (i % line >= line - gap) x.set(i, NAN);
    }
    void into(Tensor out) const { run(a, b, out); }
    void run(Tensor from_a, Tensor from_b, Tensor out) const {
        const auto call = path == Path::widened ? kernels::gemm_widened : kernels::gemm;
        call(gemm, from_a.raw(), from_b.raw(), out.raw());
    }
    HostTensor result() const {
        HostTensor out = c.clone();
        into(out);
        return out;
    }
    /// includes c's gaps
    Values expected() const {
        Values out = c.values();
        const Values a_values = a.values(), b_values = b.values();
        const Values product = reference::product(
            {gemm.m, gemm.n, gemm.k}, gemm.alpha, {a_values, gemm.a_row, gemm.a_col},
            {b_values, gemm.b_row, gemm.b_col}, gemm.accumulate ? &out : nullptr, gemm.c_row);
        for (std::int64_t i = 0; i < gemm.m * gemm.n; ++i)
            out[static_cast<std::size_t>(i / gemm.n * gemm.c_row + i % gemm.n)] =
                product[static_cast<std::size_t>(i)];
        return out;
    }
};

class GemmPaths : public ::testing::TestWithParam<Case> {};

TEST_P(GemmPaths, EqualTheNaiveProductOnViews) {
    for (auto [m, n, k] :
         {std::array<std::int64_t, 3>{1, 1, 1}, {13, 7, 5}, {65, 40, 33}, {1, 64, 50}, {64, 1, 50}})
        for (int turned = 0; turned < 4; ++turned)
            for (std::int64_t gap : {0, 9})
                for (bool accumulate : {false, true}) {
                    const Layout layout{m, n, k, gap, 2 * gap, gap / 3, (turned & 1) != 0, (turned & 2) != 0};
                    const Strided x(GetParam(), layout, accumulate ? -0.75f : 1.0f, accumulate);
                    const HostTensor result = x.result();
                    EXPECT_TRUE(close(result, x.expected(), 2, k))
                        << m << "x" << n << "x" << k << " turned " << turned << " gap " << gap;
                    for (std::int64_t i = 0; i < result.size(); ++i)
                        if (i % x.gemm.c_row >= n) {
                            ASSERT_EQ(result.at(i), x.c.at(i)) << "wrote between rows";
                        }
                }
}

TEST_P(GemmPaths, EqualTheNaiveProductForLongSums) {
    for (std::int64_t k : {2048, 2100, 3000})  // four or five pieces if the sum is cut, also with a remainder
        for (bool accumulate : {false, true})
            for (bool turned : {false, true}) {
                const Strided x(GetParam(), {48, 70, k, 8, 2, 4, turned, false}, -0.75f, accumulate);
                EXPECT_TRUE(close(x.result(), x.expected(), 2, k)) << "k " << k << " turned " << turned;
            }
}

/// Copy of a tensor that starts one element after an aligned address.
HostTensor moved_by_one(const HostTensor& x) {
    HostTensor larger(x.dtype(), {x.size() + 1});
    for (std::int64_t i = 0; i < x.size(); ++i) larger.set(i + 1, x.at(i));
    return larger;
}

TEST_P(GemmPaths, NeedNoAlignment) {
    const Strided x(GetParam(), {37, 50, 70, 3, 5, 1, false, false}, 1.0f, true);
    const HostTensor a = moved_by_one(x.a), b = moved_by_one(x.b), c = moved_by_one(x.c);
    const auto part = [](Tensor t) { return t.rows(1, t.size() - 1); };
    x.run(part(a), part(b), part(c));
    EXPECT_TRUE(same_bits(part(c), x.result()));
    EXPECT_EQ(c.at(0), 0);
}

TEST_P(GemmPaths, RunInsideAParallelRegionAsOnOneThread) {
    // Attention and frozen weights depend on this for bits that do not depend on the number of threads.
    // Several threads would share long sums. The product outside comes first, so that its primitive is the
    // one in the cache.
    for (const Layout& layout :
         {Layout{96, 80, 200, 3, 0, 0, true, false}, {8, 16, 20000, 0, 0, 0, false, false}}) {
        const Strided x(GetParam(), layout, 0.5f, true);
        for (int threads : {3, 2, 1}) {
            const Threads scope(threads);
            x.result();
        }
        std::vector<HostTensor> results;
        for (int i = 0; i < 3; ++i) results.push_back(x.c.clone());
#pragma omp parallel num_threads(3)
        x.into(results[static_cast<std::size_t>(omp_get_thread_num())]);
        const Threads scope(1);
        const HostTensor alone = x.result();
        for (const HostTensor& result : results) EXPECT_TRUE(same_bits(result, alone));
    }
}

TEST_P(GemmPaths, AlternateBetweenRegionsAndOtherNumbersOfThreads) {
    // One description with primitives for one thread and for several, in turn.
    const Strided x(GetParam(), {70, 90, 64, 0, 0, 0, false, true}, 1.0f, false);
    const Values expected = x.expected();
    HostTensor inside = x.c.clone();
    for (int threads : {1, 3, 2, 1}) {
        const Threads scope(threads);
        EXPECT_TRUE(close(x.result(), expected, 2, 64)) << threads << " threads";
#pragma omp parallel
#pragma omp single
        x.into(inside);
        EXPECT_TRUE(close(inside, expected, 2, 64)) << "inside " << threads << " threads";
    }
}

INSTANTIATE_TEST_SUITE_P(Types, GemmPaths,
                         ::testing::Values(Case{Path::chosen, DType::f32, DType::f32},
                                           Case{Path::chosen, DType::bf16, DType::bf16},
                                           Case{Path::chosen, DType::bf16, DType::f32},
                                           Case{Path::chosen, DType::f64, DType::f64},
                                           Case{Path::widened, DType::bf16, DType::bf16},
                                           Case{Path::widened, DType::bf16, DType::f32}),
                         name);

TEST(GemmCache, HoldsMoreShapesThanItsEntries) {
    // 4200 descriptions, then the first again: entries are dropped, and results stay right.
    if (instrumented()) GTEST_SKIP() << "most of it is oneDNN's making of kernels, which nothing watches";
    const HostTensor a = HostTensor::normal(DType::f32, {1, 70}, "a"),
                     b = HostTensor::normal(DType::f32, {70, 60}, "b");
    const Values a_values = a.values(), b_values = b.values();
    const auto check = [&](std::int64_t k, std::int64_t n) {
        const HostTensor c(DType::f32, {1, n});
        const Gemm g{.m = 1, .n = n, .k = k, .a_row = 70, .b_row = 60, .c_row = n};
        kernels::gemm(g, static_cast<Tensor>(a).raw(), static_cast<Tensor>(b).raw(),
                      static_cast<Tensor>(c).raw());
        return close(c, reference::product({1, n, k}, 1, {a_values, 70, 1}, {b_values, 60, 1}), 4, k);
    };
    for (std::int64_t k = 1; k <= 70; ++k)
        for (std::int64_t n = 1; n <= 60; ++n) ASSERT_TRUE(check(k, n)) << "k " << k << " n " << n;
    EXPECT_TRUE(check(1, 1));
}

}  // namespace
}  // namespace switchyard::test

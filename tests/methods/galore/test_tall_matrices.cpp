// RANKS: 1 2 3 4
// Sums, orthonormal bases and their measure of matrices whose rows are spread over ranks, against the
// Gram-Schmidt process on whole matrices; and the small algebra behind them.
#include <gtest/gtest.h>

#include "core/rng.hpp"
#include "kernels/transfer.hpp"
#include "methods/galore/cholesky.hpp"
#include "methods/galore/tall_matrices.hpp"
#include "reference/galore.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using test::Values;

constexpr std::int64_t low_rank = 5;

/// The part of a rank of a whole (rows, r) matrix, which depends on the ranks that share it alone.
Values part_of(const std::string& name, std::int64_t rows) {
    Values values;
    for (std::int64_t i = 0; i < rows * low_rank; ++i) values.push_back(normal(stream_key(3, name), i));
    return values;
}

Values columns(const Tensor& t) {
    return test::values_of(t);
}

/// Matrices of `rows` rows over dp and over the world, in memory of their own.
struct Fixture {
    Config config = testing::tiny_config({"--run.dtype=f64"});
    const Topology& topology;
    Traffic traffic;
    Arena arena;
    TallMatrices tall;
    std::vector<TallMatrix> from, to;
    Tensor result;

    Fixture(const Topology& topology, const std::vector<std::int64_t>& rows) : topology(topology) {
        build(rows);
        arena = Arena::allocate(arena);
        build(rows);
    }
    void build(const std::vector<std::int64_t>& rows) {
        from.clear(), to.clear();
        tall = {};
        const ModelContext context{config, topology, arena, traffic, DType::f64, 1, 1};
        for (const Comm* group : {&topology.dp, &topology.world})
            for (const std::int64_t count : rows) {
                tall.expect(*group, count);
                for (auto* matrices : {&from, &to})
                    matrices->push_back(
                        {arena.take(MemoryClass::workspace, DType::f64, {count, low_rank}), group});
            }
        tall.allocate(context, static_cast<std::int64_t>(from.size()), low_rank);
        result = arena.take(MemoryClass::workspace, DType::f64, {1});
    }
    /// The rows of matrix i on all ranks that hold other rows of it, in order: those of dp matrices are cut
    /// over tp.
    std::string name(std::size_t i, int tp_rank) const {
        return fmt::format("{} {}", i, from[i].group == &topology.dp ? tp_rank : 0);
    }
    Values whole(std::size_t i) const {
        const int parts = from[i].group == &topology.dp ? topology.tp_size() : 1;
        Values all;
        for (int p = 0; p < parts; ++p) {
            const Values part = part_of(name(i, p), from[i].values.dim(0));
            all.insert(all.end(), part.begin(), part.end());
        }
        return all;
    }
    void set(const std::vector<TallMatrix>& matrices, double factor) {
        for (std::size_t i = 0; i < matrices.size(); ++i) {
            Values mine = part_of(name(i, topology.tp_rank()), matrices[i].values.dim(0));
            for (double& x : mine) x *= factor;
            kernels::upload(mine.data(), matrices[i].values);
        }
    }
};

TEST(TallMatricesTest, BasesAreThoseOfGramSchmidtOnEveryLayout) {
    testing::for_each_layout(testing::tiny_config({}), [&](const Config&, const Topology& topology) {
        Fixture x(topology, {7, 24, 9});
        // Every rank brings a share of the sum; where rows are not its own, the rest is of no account.
        x.set(x.from, 1.0 / topology.dp_size());
        for (std::size_t i = 0; i < x.from.size(); ++i) {
            if (x.from[i].group == &topology.dp) continue;
            Values mine = part_of(x.name(i, 0), x.from[i].values.dim(0));
            for (double& value : mine) value /= topology.world.size();
            kernels::upload(mine.data(), x.from[i].values);
        }
        const double before = x.traffic.bytes[static_cast<int>(TrafficGroup::other)];
        x.tall.sum(x.from);
        const double summed = x.traffic.bytes[static_cast<int>(TrafficGroup::other)];
        EXPECT_EQ(summed - before, x.tall.sum_bytes(x.from));
        const std::vector<bool> solved = x.tall.orthonormalise(x.from, x.to);
        const double sent = x.traffic.bytes[static_cast<int>(TrafficGroup::other)];
        EXPECT_EQ(sent - summed, x.tall.orthonormalise_bytes(x.to));
        for (std::size_t i = 0; i < x.to.size(); ++i) {
            SCOPED_TRACE(i);
            EXPECT_TRUE(solved[i]);
            const std::int64_t rows = x.to[i].values.dim(0);
            const Values whole = x.whole(i);
            const Values basis =
                reference::gram_schmidt(whole, static_cast<int>(whole.size() / low_rank), low_rank);
            const std::int64_t first = x.to[i].group == &topology.dp ? topology.tp_rank() * rows : 0;
            const Values expected(basis.begin() + first * low_rank,
                                  basis.begin() + (first + rows) * low_rank);
            const Values actual = columns(x.to[i].values);
            for (std::size_t k = 0; k < expected.size(); ++k) ASSERT_NEAR(actual[k], expected[k], 1e-13);
            double residual = 0;
            x.tall.measure(x.to[i], x.result);
            kernels::download(x.result, &residual);
            EXPECT_LT(residual, 1e-14);
        }
    });
}

TEST(TallMatricesTest, DependentColumnsLeaveAMatrixAsItIs) {
    testing::for_each_layout(testing::tiny_config({}), [&](const Config&, const Topology& topology) {
        Fixture x(topology, {8});
        x.set(x.from, 1);
        Values values = columns(x.from[0].values);
        for (std::size_t row = 0; row < 8; ++row)
            values[row * low_rank + 3] = 2 * values[row * low_rank] - values[row * low_rank + 1];
        kernels::upload(values.data(), x.from[0].values);
        const Values before = columns(x.to[0].values);
        const std::vector<bool> solved = x.tall.orthonormalise(x.from, x.to);
        EXPECT_FALSE(solved[0]);
        EXPECT_TRUE(solved[1]);
        EXPECT_EQ(columns(x.to[0].values), before);
        // A basis is measured as what it is.
        double residual = 0;
        x.tall.measure(x.from[1], x.result);
        kernels::download(x.result, &residual);
        EXPECT_GT(residual, 0.1);
    });
}

TEST(CholeskyTest, RefusesWhatHasNoBasis) {
    const auto solved = [](Values gram) { return orthonormalising_map(gram, 2); };
    EXPECT_TRUE(solved({4, 0, 0, 9}));
    EXPECT_FALSE(solved({4, 6, 6, 9}));
    EXPECT_FALSE(solved({0, 0, 0, 9}));
    EXPECT_FALSE(solved({NAN, 0, 0, 9}));
    EXPECT_FALSE(solved({4, NAN, NAN, 9}));
    EXPECT_FALSE(solved({INFINITY, 0, 0, 9}));
    Values gram{4, 2, 2, 10};  // S = {{2, 1}, {0, 3}}
    ASSERT_TRUE(orthonormalising_map(gram, 2));
    EXPECT_NEAR(gram[0], 0.5, 1e-15);
    EXPECT_NEAR(gram[1], -1.0 / 6, 1e-15);
    EXPECT_EQ(gram[2], 0);
    EXPECT_NEAR(gram[3], 1.0 / 3, 1e-15);
}

}  // namespace
}  // namespace switchyard

// RANKS: 1 2 3 4
// Scalars of all ranks: sums in rank order with the bits of a loop, maxima that keep NaN; they do not count
// as traffic.
#include <gtest/gtest.h>

#include <algorithm>

#include "optim/rank_values.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using test::HostTensor;

double value_of(int rank, int i) {
    return normal(stream_key(static_cast<std::uint64_t>(rank), "rank values"), i);
}

TEST(RankValuesTest, CombinesInRankOrder) {
    const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
    RankValues values;
    const Arena arena = allocate_scratch([&](Arena& a) { values = RankValues(a, comm, 2); });
    Traffic traffic;
    for (const kernels::Combine how : {kernels::Combine::sum, kernels::Combine::max}) {
        HostTensor mine(DType::f64, {2}, {value_of(comm.rank(), 0), value_of(comm.rank(), 1)});
        values.combine(mine, how, traffic);
        for (int i = 0; i < 2; ++i) {
            double expected = value_of(0, i);
            for (int p = 1; p < comm.size(); ++p)
                expected = how == kernels::Combine::sum ? expected + value_of(p, i)
                                                        : std::max(expected, value_of(p, i));
            EXPECT_EQ(mine.at(i), expected);
        }
    }
    for (int p = 0; p < comm.size(); ++p) {
        HostTensor mine(DType::f64, {2}, {1, p == comm.rank() ? NAN : 2});
        values.combine(mine, kernels::Combine::max, traffic);
        EXPECT_EQ(mine.at(0), 1);
        EXPECT_TRUE(std::isnan(mine.at(1)));
    }
    for (double bytes : traffic.bytes) EXPECT_EQ(bytes, 0);
}

}  // namespace
}  // namespace switchyard

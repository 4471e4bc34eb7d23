// Lists are uploaded and scalars are downloaded in one transfer each; lists that are ranges are not
// transferred.
#include "kernels/elementwise.hpp"
#include "kernels/step_memory.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

using kernels::StepLists;
using kernels::StepScalars;

std::vector<std::int32_t> on_host(Tensor list) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(list.size()));
    kernels::download(list, values.data());
    return values;
}

TEST(StepMemory, ListsLieInBackEndMemoryAfterCommit) {
    StepLists lists;
    const Arena arena = allocate_scratch([&](Arena& a) { lists = StepLists(a, 7); });
    for (std::int32_t round : {0, 10}) {  // the second round uses the memory again
        lists.begin();
        const std::vector<std::int32_t> first{3 + round, 1 + round}, second{5 + round, 6 + round, 9 + round};
        const Tensor a = lists.add(first);
        const kernels::Rows range = lists.rows(std::vector<std::int32_t>{4, 5, 6}),
                            listed = lists.rows(second);
        EXPECT_TRUE(lists.add({}).empty());
        EXPECT_EQ(lists.rows({}).count, 0);  // not the one row that an empty tensor seems to have
        lists.commit();
        EXPECT_EQ(on_host(a), first);
        EXPECT_EQ(on_host(listed.list), second);
        EXPECT_EQ(listed.count, 3);
        EXPECT_TRUE(range.list.empty());
        EXPECT_EQ(range.first, 4);
        EXPECT_EQ(range.count, 3);
    }
    EXPECT_THROW(lists.add(std::vector<std::int32_t>(3)), InternalError);
}

TEST(StepMemory, ScalarsComeBackTogether) {
    StepScalars scalars;
    const Arena arena = allocate_scratch([&](Arena& a) { scalars = StepScalars(a); });
    const int one = scalars.take(), two = scalars.take(2);
    kernels::fill(scalars.slots(one), 1.5);
    kernels::fill(scalars.slots(two, 2), -2);
    const std::span<const double> values = scalars.read();
    ASSERT_EQ(values.size(), 3u);
    EXPECT_EQ(values[one], 1.5);
    EXPECT_EQ(values[two], -2);
    EXPECT_EQ(values[two + 1], -2);
    EXPECT_THROW(scalars.take(100), InternalError);
}

}  // namespace
}  // namespace switchyard::test

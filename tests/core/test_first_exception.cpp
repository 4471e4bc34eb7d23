// What threads throw in a parallel region is thrown once after the region.
#include <gtest/gtest.h>
#include <omp.h>

#include <stdexcept>
#include <vector>

#include "core/error.hpp"
#include "core/first_exception.hpp"

namespace switchyard {
namespace {

TEST(FirstExceptionTest, IsThrownAfterTheRegionAndStopsFurtherWork) {
    FirstException failure;
    std::atomic<int> done{0};
#pragma omp parallel for schedule(static, 1) num_threads(4)
    for (int i = 0; i < 1000; ++i)
        failure.guard([&] {
            if (i == 0) throw std::runtime_error("of unit 0");
            ++done;
        });
    EXPECT_LT(done.load(), 1000);
    try {
        failure.rethrow();
        FAIL() << "nothing thrown";
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "of unit 0");
    }
}

TEST(FirstExceptionTest, OneOfManyIsKeptWhole) {
    FirstException failure;
#pragma omp parallel for num_threads(4)
    for (int i = 0; i < 100; ++i) failure.guard([&] { throw UserError("number " + std::to_string(i)); });
    try {
        failure.rethrow();
        FAIL() << "nothing thrown";
    } catch (const UserError& error) {
        EXPECT_EQ(std::string(error.what()).rfind("number ", 0), 0u);
    }
}

TEST(FirstExceptionTest, NothingThrownIsNothing) {
    FirstException failure;
    std::vector<int> done(100);
#pragma omp parallel for num_threads(4)
    for (int i = 0; i < 100; ++i) failure.guard([&] { done[static_cast<std::size_t>(i)] = 1; });
    EXPECT_NO_THROW(failure.rethrow());
    EXPECT_EQ(done, std::vector<int>(100, 1));
}

TEST(FirstExceptionTest, APlantedFailureStrikesOnce) {
    plant_failure("planted");
    FirstException failure, next;
    failure.guard([] {});
    next.guard([] {});
    EXPECT_THROW(failure.rethrow(), UserError);
    EXPECT_NO_THROW(next.rethrow());
}

}  // namespace
}  // namespace switchyard

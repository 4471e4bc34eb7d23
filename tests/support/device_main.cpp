// main() of all tests of single ranks in one program, for a machine with a GPU; exits with 77, a skip, where there is
// none.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/backend_memory.hpp"
#include "core/error.hpp"

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    try {
        std::printf("device: %s\n", switchyard::backend::pool().name.c_str());
    } catch (const switchyard::UserError& error) {
        std::printf("SKIPPED: %s\n", error.what());
        return 77;
    }
    return RUN_ALL_TESTS();
}

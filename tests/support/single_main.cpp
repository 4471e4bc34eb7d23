// GoogleTest in a single process.
#include "support/chosen_source.hpp"

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    return switchyard::testing::choose_source(argc, argv) ? RUN_ALL_TESTS() : 2;
}

// Which GPU a rank takes, by what launchers tell it, and a GPU that the program was not built for.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/processor.hpp"

namespace {

using switchyard::backend::Processor;
using switchyard::backend::processor;

/// The device of a process is chosen once, so each case is a process of its own.
void with(const char* variable, const char* value, const char* text) {
    const auto ask = [&] {
        ::setenv("CUDA_EMULATION_DEVICES", "4", 1);
        ::setenv(variable, value, 1);
        const Processor here = processor();
        std::fprintf(stderr, "GPU %d%s", here.number, here.problem.c_str());
        std::_Exit(0);
    };
    EXPECT_EXIT(ask(), ::testing::ExitedWithCode(0), text) << variable << " " << value;
}

TEST(DeviceChoiceDeathTest, IsTheRanksNumberOnItsNode) {
    for (const char* variable : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID",
                                 "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "FLUX_TASK_LOCAL_ID"}) {
        with(variable, "2", "^GPU 2$");
        with(variable, "5", "^GPU 1$");
    }
}

TEST(DeviceChoiceDeathTest, AGpuThatTheProgramWasNotBuiltForIsNamed) {
    for (const char* newer : {"90", "100", "121"}) with("CUDA_EMULATION_CAPABILITY", newer, "^GPU 0$");
    with("CUDA_EMULATION_CAPABILITY", "80",
         "GPU 0 .emulated GPU. has compute capability 8.0, and this program was built for 90 .*; build with "
         "-DSWITCHYARD_GPU_ARCHITECTURES=80");
}

}  // namespace

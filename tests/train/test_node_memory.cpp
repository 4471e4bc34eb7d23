// The memory of a GPU that is compared with what its ranks need.
// BACK ENDS: cuda-emulated. It needs a GPU whose memory can be chosen.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "train/node_memory.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t mib = 1 << 20;

Arena measured(std::int64_t bytes) {
    Arena arena;
    arena.take(MemoryClass::frozen, DType::u8, {bytes});
    return arena;
}

TEST(NodeMemory, LeavesAPartOfTheGpuToTheDriverAndNccl) {
    ::setenv("CUDA_EMULATION_MEMORY", std::to_string((512 + 8) * mib).c_str(), 1);
    const Topology alone;
    EXPECT_NO_THROW(allocate_arena(alone, measured(7 * mib)));
    try {
        allocate_arena(alone, measured(9 * mib));
        ADD_FAILURE() << "512 MiB of 520 are not free for tensors";
    } catch (const UserError& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("need 9.00 MiB, 520 MiB are available, of which 512 MiB are left to the driver"),
                  std::string::npos)
            << text;
    }
}

}  // namespace
}  // namespace switchyard

// The memory of a GPU that is compared with what its ranks need.
// BACK ENDS: cuda-emulated. It needs a GPU whose memory can be chosen.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "support/temporary_directory.hpp"
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
    EXPECT_CONTAINS(test::message_of<UserError>([&] { allocate_arena(alone, measured(9 * mib)); }),
                    "need 9.00 MiB, 520 MiB are available, of which 512 MiB are left to the driver");
}

}  // namespace
}  // namespace switchyard

// What was lent last is used first. Kernels that run without a state (checks of the machine, tests), or need
// more than was lent, get memory of the process, which grows.
#include "cuda/workspace.hpp"

#include <algorithm>
#include <vector>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "core/units.hpp"
#include "kernels/workspace.hpp"

namespace switchyard {
namespace {

struct Space {
    std::byte* memory = nullptr;
    std::size_t bytes = 0;
};

/// Never destroyed: the driver may have ended before.
struct Spaces {
    std::vector<Space> lent;
    Space own;
};

Spaces& spaces() {
    static auto* const all = new Spaces;
    return *all;
}

void give_up_own() {
    Space& own = spaces().own;
    if (own.memory) backend::release(own.memory);  // which waits for the kernels that use it
    own = {};
}

}  // namespace

void* cuda::workspace(std::size_t bytes) {
    const std::vector<Space>& lent = spaces().lent;
    const auto fits = [&](const Space& space) { return space.bytes >= bytes; };
    if (const auto found = std::find_if(lent.rbegin(), lent.rend(), fits); found != lent.rend())
        return found->memory;
    Space& own = spaces().own;
    if (fits(own)) return own.memory;
    bytes = std::max({bytes, usual_workspace_bytes, 2 * own.bytes});
    give_up_own();
    own.memory = backend::allocate(bytes);
    require(own.memory != nullptr,
            "out of memory: {} of workspace for kernels are not left on the GPU (beside the arena, because "
            "this run needs more than the usual {}); use more ranks, a larger parallel.tp or a smaller "
            "data.micro_batch",
            bytes_text(bytes), bytes_text(usual_workspace_bytes));
    own.bytes = bytes;
    return own.memory;
}

std::size_t kernels::workspace_bytes() {
    return cuda::usual_workspace_bytes;
}

void kernels::lend_workspace(Tensor memory) {
    spaces().lent.push_back({memory.data<std::byte>(), memory.bytes()});
    if (spaces().own.bytes <= memory.bytes()) give_up_own();
}

void kernels::take_back_workspace(Tensor memory) {
    std::erase_if(spaces().lent, [&](const Space& space) { return space.memory == memory.raw(); });
}

}  // namespace switchyard

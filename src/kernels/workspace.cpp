// The part that all back ends share: the loan.
#include "kernels/workspace.hpp"

namespace switchyard::kernels {

Workspace::Workspace(Arena& arena) {
    const auto bytes = static_cast<std::int64_t>(workspace_bytes());
    if (bytes == 0) return;
    memory_ = arena.take(MemoryClass::workspace, DType::u8, {bytes}, Arena::Content::undefined);
    if (!arena.measuring()) lend_workspace(memory_);
}

Workspace::~Workspace() {
    if (memory_.raw()) take_back_workspace(memory_);
}

}  // namespace switchyard::kernels

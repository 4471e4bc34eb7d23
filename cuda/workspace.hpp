// Device memory for the length of one call: products and kernels take turns in it, because all of them run on
// the compute stream. Normally it lies in the arena of the state (kernels/workspace.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::cuda {

/// NVIDIA recommends that much for products on Hopper; fixed, because the choice of an algorithm depends on
/// it. Other kernels need less than this unless a rank has 2 M tokens in a micro-batch, 2 M vectors with step
/// counters of their own, or 64 GiB of gradients.
inline constexpr std::size_t usual_workspace_bytes = std::size_t{32} << 20;

/// At least `bytes`, aligned to 256, undefined content, valid until the next call of workspace(). On the
/// compute stream alone.
void* workspace(std::size_t bytes);
template <class T>
T* workspace_of(std::int64_t count) {
    return static_cast<T*>(workspace(static_cast<std::size_t>(count) * sizeof(T)));
}

}  // namespace switchyard::cuda

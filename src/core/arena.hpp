// Arena: one allocation for everything that a run needs. A measuring arena hands out Tensors without memory,
// so the same objects are built twice: once to count the bytes (which is what `plan` prints), once in memory.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>

#include "core/tensor.hpp"

namespace switchyard {

/// copies: merged or gathered copies of frozen weights. moments: the optimizer's moments and master values.
enum class MemoryClass { frozen, copies, bank, trainable, gradients, moments, activations, workspace };
inline constexpr int num_memory_classes = 8;
const char* name_of(MemoryClass);

class Arena {
  public:
    /// Measures only: its Tensors have null data.
    Arena() = default;
    /// Allocates once what `measured` counted. Throws UserError naming the bytes per class when the system
    /// refuses the memory.
    static Arena allocate(const Arena& measured);

    bool measuring() const { return memory_ == nullptr; }
    /// In one piece that is aligned to backend::alignment(). Clearing it is also the first touch of its
    /// pages.
    enum class Content { zero, undefined };
    Tensor take(MemoryClass, DType, Shape, Content = Content::zero);
    /// Scratch shared by all callers. It is valid only within one kernel-level call chain that asks for it
    /// once. The region is as large as the largest request and is counted once, as workspace.
    Tensor shared(DType, Shape);

    std::size_t bytes(MemoryClass c) const { return bytes_[static_cast<int>(c)]; }
    std::size_t total_bytes() const;
    /// "frozen 12.3 MiB, bank ..." for messages.
    std::string text() const;

  private:
    struct Free {
        void operator()(std::byte*) const;
    };
    std::unique_ptr<std::byte, Free> memory_;
    std::size_t capacity_ = 0, shared_capacity_ = 0, used_ = 0, shared_ = 0;
    std::array<std::size_t, num_memory_classes> bytes_{};
};

/// Returns an arena that holds what `take(arena)` takes. `take` is called twice: to measure and to hand out.
template <class Take>
Arena allocate_scratch(const Take& take) {
    Arena measured;
    take(measured);
    Arena arena = Arena::allocate(measured);
    take(arena);
    return arena;
}

}  // namespace switchyard

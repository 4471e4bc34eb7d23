// What a method needs for a moment lies in scratch that others use too (Arena::shared()), as one piece.
#pragma once

#include "core/arena.hpp"

namespace switchyard {

/// Tensors one after the other in a piece of memory, each at the beginning of a cache line. Without memory it
/// counts bytes.
class Places {
  public:
    explicit Places(Tensor bytes = {}) : bytes_(bytes) {}
    Tensor take(DType dtype, Shape shape) {
        const std::int64_t size = shape.size() * static_cast<std::int64_t>(size_of(dtype)), first = taken_;
        taken_ += (size + 63) / 64 * 64;
        return bytes_.empty() ? Tensor(nullptr, dtype, shape) : bytes_.rows(first, size).view(dtype, shape);
    }
    std::int64_t taken() const { return taken_; }

  private:
    Tensor bytes_;
    std::int64_t taken_ = 0;
};

/// lay_out(places) takes its tensors from shared memory of their size; it is called twice.
template <class LayOut>
void take_shared(Arena& arena, const LayOut& lay_out) {
    Places sizes;
    lay_out(sizes);
    Places memory(arena.shared(DType::u8, {sizes.taken()}));
    lay_out(memory);
}

}  // namespace switchyard

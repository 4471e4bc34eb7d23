// The shared scratch lies at the start of the allocation; everything else follows in the order of the calls.
#include "core/arena.hpp"

#include <algorithm>
#include <iterator>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "core/units.hpp"

namespace switchyard {
namespace {
std::size_t aligned(std::size_t bytes) {
    const std::size_t alignment = backend::alignment();
    return (bytes + alignment - 1) / alignment * alignment;
}

constexpr double largest = 1e18;  // bytes; below 2^63, so that sums can be compared before they overflow

std::size_t bytes_of(DType dtype, const Shape& shape) {
    double bytes = static_cast<double>(size_of(dtype));
    for (int i = 0; i < shape.rank(); ++i) bytes *= static_cast<double>(shape[i]);
    require(bytes < largest,
            "out of memory: one tensor {} of {} has {:.1e} bytes (more than any machine has); "
            "choose a smaller model",
            shape, name_of(dtype), bytes);
    return aligned(static_cast<std::size_t>(shape.size()) * size_of(dtype));
}

}  // namespace

const char* name_of(MemoryClass c) {
    static const char* const names[] = {"frozen",    "copies",  "bank",        "trainable",
                                        "gradients", "moments", "activations", "workspace"};
    static_assert(std::size(names) == num_memory_classes);
    return names[static_cast<int>(c)];
}

void Arena::Free::operator()(std::byte* p) const {
    backend::release(p);
}

Arena Arena::allocate(const Arena& measured) {
    Arena arena;
    arena.capacity_ = measured.total_bytes();
    arena.shared_capacity_ = measured.shared_;
    arena.used_ = measured.shared_;
    arena.shared_ = measured.shared_;
    std::byte* memory = backend::allocate(arena.capacity_);
    require(
        memory != nullptr,
        "out of memory: this rank needs {} ({}); use more ranks, a larger tp or a smaller data.micro_batch "
        "(`switchyard plan` shows the cost before a run)",
        bytes_text(arena.capacity_), measured.text());
    arena.memory_.reset(memory);
    backend::clear(memory, arena.shared_);
    return arena;
}

Tensor Arena::take(MemoryClass c, DType dtype, Shape shape, Content content) {
    const std::size_t bytes = bytes_of(dtype, shape);
    bytes_[static_cast<int>(c)] += bytes;
    if (measuring()) {
        used_ += bytes;
        if (static_cast<double>(used_) >= largest)
            fail(
                "out of memory: the run asks for more than {:.1e} bytes ({}); "
                "choose smaller sizes",
                largest, text());
        return {nullptr, dtype, shape};
    }
    internal_check(used_ + bytes <= capacity_,
                   "arena of {} bytes is too small: the second build asks for more", capacity_);
    std::byte* start = memory_.get() + used_;
    used_ += bytes;
    if (content == Content::zero) backend::clear(start, bytes);
    return {start, dtype, shape};
}

Tensor Arena::shared(DType dtype, Shape shape) {
    const std::size_t bytes = bytes_of(dtype, shape);
    if (measuring()) {
        shared_ = std::max(shared_, bytes);
        return {nullptr, dtype, shape};
    }
    internal_check(bytes <= shared_capacity_, "shared scratch of {} bytes is too small", shared_capacity_);
    return {memory_.get(), dtype, shape};
}

std::size_t Arena::total_bytes() const {
    return measuring() ? used_ + shared_ : capacity_;
}

std::string Arena::text() const {
    std::string text;
    for (int i = 0; i < num_memory_classes; ++i) {
        std::size_t bytes = bytes_[i];
        if (static_cast<MemoryClass>(i) == MemoryClass::workspace) bytes += shared_;
        if (bytes == 0) continue;
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name_of(static_cast<MemoryClass>(i)),
                            bytes_text(bytes));
    }
    return text;
}

}  // namespace switchyard

// Lists and scalars of a step, moved by upload() and download() of any back end.
#include "kernels/step_memory.hpp"

#include "core/error.hpp"
#include "kernels/transfer.hpp"

namespace switchyard::kernels {

StepLists::StepLists(Arena& arena, std::int64_t capacity)
    : memory_(arena.take(MemoryClass::workspace, DType::i32, {capacity})) {
    if (!arena.measuring()) host_.reserve(static_cast<std::size_t>(capacity));
}

Tensor StepLists::add(std::span<const std::int32_t> list) {
    if (list.empty()) return {};
    const auto begin = static_cast<std::int64_t>(host_.size()),
               count = static_cast<std::int64_t>(list.size());
    internal_check(begin + count <= memory_.size(), "lists of {} elements in a step, of {} expected at most",
                   begin + count, memory_.size());
    host_.insert(host_.end(), list.begin(), list.end());
    return memory_.rows(begin, count);
}

Rows StepLists::rows(std::span<const std::int32_t> list) {
    bool range = true;
    for (std::size_t i = 1; i < list.size(); ++i) range = range && list[i] == list[i - 1] + 1;
    if (!list.empty() && range) return Rows::range(list[0], static_cast<std::int64_t>(list.size()));
    return Rows::listed(add(list));
}

void StepLists::commit() {
    if (!host_.empty()) upload(host_.data(), memory_.rows(0, static_cast<std::int64_t>(host_.size())));
}

StepScalars::StepScalars(Arena& arena)
    : memory_(arena.take(MemoryClass::workspace, DType::f64, {capacity})) {}

int StepScalars::take(int count) {
    internal_check(taken_ + count <= capacity, "more than {} scalars in a step", capacity);
    taken_ += count;
    return taken_ - count;
}

std::span<const double> StepScalars::read() {
    host_.resize(static_cast<std::size_t>(taken_));
    download(memory_.rows(0, taken_), host_.data());
    return host_;
}

}  // namespace switchyard::kernels

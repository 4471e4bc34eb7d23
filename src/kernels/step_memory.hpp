// What crosses between host and back end in a step, each way in one transfer: lists of rows that the host
// decides on go down (StepLists), scalars that kernels computed come up (StepScalars).
#pragma once

#include <span>
#include <vector>

#include "core/arena.hpp"
#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// Lists of i32 of one step. They are added one by one and hold their values after commit(), until begin().
class StepLists {
  public:
    StepLists() = default;
    /// capacity: elements of all lists of a step together.
    StepLists(Arena&, std::int64_t capacity);

    void begin() { host_.clear(); }
    /// A view of back-end memory, (list.size()).
    Tensor add(std::span<const std::int32_t> list);
    /// The rows of a list: a range, where they follow each other.
    Rows rows(std::span<const std::int32_t> list);
    /// One upload; none where nothing was added.
    void commit();

  private:
    std::vector<std::int32_t> host_;
    Tensor memory_;  // (capacity)
};

/// Scalars of a step, f64. Slots are taken while a run is built; kernels write them, the host reads all at
/// once.
class StepScalars {
  public:
    StepScalars() = default;
    explicit StepScalars(Arena&);

    /// `count` slots side by side; their first number.
    int take(int count = 1);
    /// (count) f64.
    Tensor slots(int first, int count = 1) const { return memory_.rows(first, count); }
    /// All slots taken: one download, which waits for everything started before.
    std::span<const double> read();

  private:
    static constexpr int capacity = 16;
    int taken_ = 0;
    std::vector<double> host_;
    Tensor memory_;  // (capacity)
};

}  // namespace switchyard::kernels

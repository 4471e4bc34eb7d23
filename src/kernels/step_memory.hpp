// What crosses between host and back end in a step, with one transfer each way: the lists of rows that the
// host decides on (StepLists), and the scalars that kernels compute (StepScalars).
#pragma once

#include <span>
#include <vector>

#include "core/arena.hpp"
#include "kernels/rows.hpp"

namespace switchyard::kernels {

/// Lists of i32 of one step. They are added one by one, are valid after commit(), and stay so until begin().
class StepLists {
  public:
    StepLists() = default;
    /// capacity: the number of elements of all lists of a step together.
    StepLists(Arena&, std::int64_t capacity);

    void begin() { host_.clear(); }
    /// Returns a view of back-end memory, (list.size()).
    Tensor add(std::span<const std::int32_t> list);
    /// Returns the rows of a list: a range if they are consecutive.
    Rows rows(std::span<const std::int32_t> list);
    /// Uploads all lists at once; without lists there is no upload.
    void commit();

  private:
    std::vector<std::int32_t> host_;
    Tensor memory_;  // (capacity)
};

/// Scalars of a step, f64. Slots are taken while a run is built; kernels write them, and the host reads all
/// of them at once.
class StepScalars {
  public:
    StepScalars() = default;
    explicit StepScalars(Arena&);

    /// Takes `count` consecutive slots; returns the number of the first.
    int take(int count = 1);
    /// A view of (count) f64.
    Tensor slots(int first, int count = 1) const { return memory_.rows(first, count); }
    /// Downloads all slots at once, after everything that was started before.
    std::span<const double> read();

  private:
    static constexpr int capacity = 16;
    int taken_ = 0;
    std::vector<double> host_;
    Tensor memory_;  // (capacity)
};

}  // namespace switchyard::kernels

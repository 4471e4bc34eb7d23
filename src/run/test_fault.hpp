// A fault on purpose, for tests: SWITCHYARD_TEST_FAULT=rank:updates:throw|kernel|hang|nan|wait|flip makes
// that rank throw (itself or in a kernel on one thread), stop moving, spoil a weight, wait for a signal or
// flip a bit of a weight's copy after so many updates; rank -1 is every rank.
#pragma once

#include <cstdint>
#include <string>

#include "model/transformer.hpp"

namespace switchyard {

class TestFault {
  public:
    /// Reads the environment once. Throws UserError when the variable cannot be understood.
    explicit TestFault(int rank);
    /// Before the step that follows `step` updates.
    void strike(std::int64_t step, Transformer&) const;
    /// After them: the lowest bit of the first frozen weight, or of the last parameter where none is frozen.
    void flip(std::int64_t step, Transformer&) const;
    /// Whether the save begun at `step` is not written before somebody waits for it.
    bool holds(std::int64_t step) const { return kind_ == "hold" && step == step_; }

  private:
    std::int64_t step_ = -1;
    std::string kind_;
};

}  // namespace switchyard

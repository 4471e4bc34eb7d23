// Deliberate faults for tests: SWITCHYARD_TEST_FAULT=rank:updates:throw|kernel|hang|nan|wait|flip|hold makes
// that rank throw (itself or in a kernel on one thread), stop moving, spoil a weight, wait for a signal, flip
// a bit of a weight's copy after so many updates, or keep the save begun then from being written until
// somebody waits for it; rank -1 is every rank. Commas separate several of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/transformer.hpp"

namespace switchyard {

class TestFault {
  public:
    /// Reads the environment once. Throws UserError when the variable cannot be understood.
    explicit TestFault(int rank);
    /// Carries out the faults due after `step` updates; called before the step that follows them.
    void strike(std::int64_t step, Transformer&) const;
    /// Called after those updates: flips the lowest bit of the first frozen weight, or of the last parameter
    /// where none is frozen.
    void flip(std::int64_t step, Transformer&) const;
    /// Whether the save begun at `step` is not written before somebody waits for it.
    bool holds(std::int64_t step) const { return asks_for("hold", step); }

  private:
    struct Fault {
        std::string kind;
        std::int64_t step = 0;
    };
    bool asks_for(std::string_view kind, std::int64_t step) const;

    std::vector<Fault> faults_;  // of this rank
};

}  // namespace switchyard

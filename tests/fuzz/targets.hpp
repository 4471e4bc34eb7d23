// What is fuzzed: one function for each kind of file that comes from outside. A target takes the bytes of a
// file; it may throw UserError, and nothing else may happen: no other exception, no signal, no hang, no wrong
// value that is taken for right (FuzzFailure).
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace switchyard::fuzz {

class FuzzFailure : public std::logic_error {
  public:
    using std::logic_error::logic_error;
};

struct Target {
    const char* name;
    void (*run)(const std::string& bytes);
    /// Files of the kind as they should be; inputs are made from them.
    std::vector<std::string> (*seeds)();
    /// Words of the format.
    std::vector<std::string> words;
    /// Inputs in a short run: those that start processes are slow.
    int short_runs;
};

const std::vector<Target>& targets();
/// Throws std::invalid_argument for a name that is none.
const Target& target_of(const std::string& name);

}  // namespace switchyard::fuzz

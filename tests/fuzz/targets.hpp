// What is fuzzed: one function for each kind of file that comes from outside. A target gets the bytes of a
// file. It may throw UserError; any other exception, a signal, a hang, or a wrong value taken for right
// (FuzzFailure) is a fault.
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
    /// Valid files of this kind, from which inputs are made.
    std::vector<std::string> (*seeds)();
    /// Words of the format, which mutants get.
    std::vector<std::string> words;
    /// Number of inputs in a short run; targets that start processes are slow.
    int short_runs;
};

const std::vector<Target>& targets();
/// Throws std::invalid_argument for an unknown name.
const Target& target_of(const std::string& name);

}  // namespace switchyard::fuzz

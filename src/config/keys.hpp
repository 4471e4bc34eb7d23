// The built-in keys: each once, with its place in Config, what it accepts, unit, help, and whether a resumed
// run may change it. A key that came later says what files without it mean.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "config/value_rule.hpp"

namespace switchyard {

struct Key {
    std::string name;  // "section.key"
    ValueRule rule;
    std::string unit, help;
    bool may_change_on_resume = false;  // design section 7.4
    /// Value that a stored configuration without the key was written with, "": the default. A run that goes
    /// on without being given the key keeps the stored value.
    std::string absent_means;
    std::function<std::string(const Config&)> text;
    std::function<void(Config&, const std::string& checked_text)> assign;
};

/// In the order of files and messages.
const std::vector<Key>& built_in_keys();

}  // namespace switchyard

// The built-in keys. The table has each key once: its place in Config, accepted values, unit, help, and
// whether a resumed run may change it. A key that was added later also tells what its absence in a file
// means.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "config/value_rule.hpp"

namespace switchyard {

/// Of model.vocab_size and of token files.
inline constexpr std::int64_t largest_vocabulary = 1 << 24;

struct Key {
    std::string name;  // "section.key"
    ValueRule rule;
    std::string unit, help;
    bool may_change_on_resume = false;  // design section 7.4
    /// The value that files without the key were written with; "": the default. A resumed run keeps the
    /// stored value unless the key is given.
    std::string absent_means;
    std::function<std::string(const Config&)> text;
    std::function<void(Config&, const std::string& checked_text)> assign;
};

/// In the order in which files and messages list them.
const std::vector<Key>& built_in_keys();

}  // namespace switchyard

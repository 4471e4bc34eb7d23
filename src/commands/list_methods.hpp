// train --list-methods: what the methods are, and what they cost beside `full`.
#pragma once

#include <string>

namespace switchyard {

/// For each method its equation, keys with defaults, rates, source and use, and its memory and bytes relative to
/// `full`, planned for one model on eight data-parallel ranks.
std::string methods_text();

}  // namespace switchyard

// The methods this program knows: a new one adds one line to registry.cpp.
#pragma once

#include "config/option_table.hpp"
#include "methods/method.hpp"

namespace switchyard {

struct MethodEntry {
    MethodOptions options;  // name, help, keys of section [method]
    std::unique_ptr<Method> (*create)(const Config&);
};

/// For parse_config and friends.
std::vector<MethodOptions> method_options();
/// Replaces "auto" values by what they mean for this model (rank: hidden_size / 4).
void resolve_method_options(Config&);
std::unique_ptr<Method> make_method(const Config&);

/// The method whose checkpoints hold whole weights and nothing beside them: for weights from elsewhere.
const char* method_of_whole_weights();

}  // namespace switchyard

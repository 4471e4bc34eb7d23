// The methods that this program knows. A new method adds one line to registry.cpp.
#pragma once

#include "config/option_table.hpp"
#include "methods/method.hpp"

namespace switchyard {

/// What `train --list-methods` says of a method beside its keys and rates; more stands in docs/methods.md.
struct MethodGuide {
    std::string equation{}, source{}, use{}, validated{};
};

struct MethodEntry {
    MethodOptions options;  // name, help, keys of section [method], rates
    std::unique_ptr<Method> (*create)(const Config&);
    /// Replaces `auto` in the method's own keys by the value for this model.
    void (*resolve)(Config&) = [](Config&) {};
    /// Throws UserError if the method's keys do not fit the model, which is valid by itself.
    void (*check)(const Config&) = [](const Config&) {};
    MethodGuide guide{};
};

/// For tests: adds a method to those of registry.cpp. To be called before any configuration is read.
void add_method(const MethodEntry&);

/// The list that parse_config and other functions of config take.
std::vector<MethodOptions> method_options();
/// In the order of method_options().
std::vector<MethodGuide> method_guides();
/// Replaces `auto` in optim.lr, optim.dense_lr and the method's keys by the method's values, and
/// optim.dense_lr = 0 by optim.lr.
void resolve_auto(Config&);
/// Does what validate() does and checks the method's requirements on the model.
void validate_run(const Config&, int ranks);
std::unique_ptr<Method> make_method(const Config&);

/// Throws UserError naming method and use if the method of a stored configuration refuses the use.
void require_supported(const Config& stored, Use, const std::string& path);
bool is_supported(const Config&, Use);

/// The method whose checkpoints hold whole weights and nothing else. Imported weights get it.
const char* method_of_whole_weights();

}  // namespace switchyard

// The methods this program knows: a new one adds one line to registry.cpp.
#pragma once

#include "config/option_table.hpp"
#include "methods/method.hpp"

namespace switchyard {

struct MethodEntry {
    MethodOptions options;  // name, help, keys of section [method], rates
    std::unique_ptr<Method> (*create)(const Config&);
    /// Replaces `auto` in the method's own keys by what it means for this model.
    void (*resolve)(Config&) = [](Config&) {};
    /// Throws UserError where the method's keys do not fit the model, which is valid by itself.
    void (*check)(const Config&) = [](const Config&) {};
};

/// A method beside those of registry.cpp, before any configuration is read: of a test.
void add_method(const MethodEntry&);

/// For parse_config and friends.
std::vector<MethodOptions> method_options();
/// Replaces `auto` in optim.lr, optim.dense_lr and the method's keys by the values that the method names; and
/// optim.dense_lr = 0 by optim.lr.
void resolve_auto(Config&);
/// validate(), and what the method asks of the model beyond that.
void validate_run(const Config&, int ranks);
std::unique_ptr<Method> make_method(const Config&);

/// Throws UserError naming method and use where the method of a stored configuration refuses it.
void require_supported(const Config& stored, Use, const std::string& path);

/// The method whose checkpoints hold whole weights and nothing beside them: for weights from elsewhere.
const char* method_of_whole_weights();

}  // namespace switchyard

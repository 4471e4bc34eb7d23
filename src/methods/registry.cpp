// One line a method.
#include "methods/registry.hpp"

#include <algorithm>

#include "core/error.hpp"

#define SWITCHYARD_METHODS(X) \
    X(full)                   \
    X(lora)                   \
    X(switchlora)

namespace switchyard {

namespace methods {
#define DECLARE(name) MethodEntry name();
SWITCHYARD_METHODS(DECLARE)
#undef DECLARE
}  // namespace methods

namespace {

const std::vector<MethodEntry>& entries() {
#define ENTRY(name) methods::name(),
    static const std::vector<MethodEntry> all{SWITCHYARD_METHODS(ENTRY)};
#undef ENTRY
    return all;
}

}  // namespace

std::vector<MethodOptions> method_options() {
    std::vector<MethodOptions> all;
    for (const MethodEntry& entry : entries()) all.push_back(entry.options);
    return all;
}

void resolve_method_options(Config& config) {
    const auto rank = config.method.options.find("rank");
    if (rank != config.method.options.end() && rank->second == "auto")
        rank->second = std::to_string(std::max<std::int64_t>(1, config.model.hidden_size / 4));
}

std::unique_ptr<Method> make_method(const Config& config) {
    for (const MethodEntry& entry : entries())
        if (entry.options.name == config.method.name) return entry.create(config);
    fail(
        "unknown method '{}' (it has no entry in the registry) see `switchyard train --help` for the methods",
        config.method.name);
}

const char* method_of_whole_weights() {
    return "full";
}

}  // namespace switchyard

// The list of methods: one line for each.
#include "methods/registry.hpp"

#include <deque>

#include "core/error.hpp"

#define SWITCHYARD_METHODS(X) \
    X(full)                   \
    X(lora)                   \
    X(switchlora)             \
    X(relora)                 \
    X(dora)                   \
    X(sora)                   \
    X(galore)                 \
    X(muon)                   \
    X(apollo)                 \
    X(riemannian)             \
    X(melora)                 \
    X(flatlora)               \
    X(loft)                   \
    X(pclora)

namespace switchyard {

namespace methods {
#define DECLARE(name) MethodEntry name();
SWITCHYARD_METHODS(DECLARE)
#undef DECLARE
}  // namespace methods

namespace {

std::deque<MethodEntry>& entries() {
#define ENTRY(name) methods::name(),
    static std::deque<MethodEntry> all{SWITCHYARD_METHODS(ENTRY)};
#undef ENTRY
    return all;
}

const MethodEntry& entry_of(const Config& config) {
    for (const MethodEntry& entry : entries())
        if (entry.options.name == config.method.name) return entry;
    fail(
        "unknown method '{}' (it has no entry in the registry); for the methods see `switchyard train "
        "--help`",
        config.method.name);
}

}  // namespace

void add_method(const MethodEntry& entry) {
    entries().push_back(entry);
}

std::vector<MethodOptions> method_options() {
    std::vector<MethodOptions> all;
    for (const MethodEntry& entry : entries()) all.push_back(entry.options);
    return all;
}

std::vector<MethodGuide> method_guides() {
    std::vector<MethodGuide> all;
    for (const MethodEntry& entry : entries()) all.push_back(entry.guide);
    return all;
}

void resolve_auto(Config& config) {
    const MethodEntry& method = entry_of(config);
    OptimConfig& optim = config.optim;
    if (optim.lr == auto_value) optim.lr = method.options.lr;
    if (optim.dense_lr == auto_value) optim.dense_lr = method.options.dense_lr;
    if (optim.dense_lr == 0) optim.dense_lr = optim.lr;
    method.resolve(config);
}

void validate_run(const Config& config, int ranks) {
    const OptimConfig& optim = config.optim;
    internal_check(optim.lr >= 0 && optim.dense_lr >= 0, "optim.lr = {}, optim.dense_lr = {}: not resolved",
                   optim.lr, optim.dense_lr);
    validate(config, ranks);
    entry_of(config).check(config);
}

std::unique_ptr<Method> make_method(const Config& config) {
    return entry_of(config).create(config);
}

void require_supported(const Config& stored, Use use, const std::string& path) {
    constexpr const char* names[] = {
        "`eval`", "`generate`", "`export`", "`export --adapters`", "run.init_from", "run.init_state = all"};
    const std::optional<Refusal> refusal = make_method(stored)->refusal(use);
    require(!refusal, "{} cannot use `{}`, trained by method.name = {} ({}); {}",
            names[static_cast<int>(use)], path, stored.method.name, refusal ? refusal->why : "",
            refusal ? refusal->instead : "");
}

bool is_supported(const Config& config, Use use) {
    return !make_method(config)->refusal(use);
}

const char* method_of_whole_weights() {
    return "full";
}

}  // namespace switchyard

// Every message names the key, the stored value and the requested value.
#include "train/resume_rules.hpp"

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/run/run_directory.hpp"
#include "optim/schedule.hpp"

namespace switchyard {
namespace {

/// True for keys that only name a set of sizes. The sizes themselves are compared one by one, so the name
/// does not matter.
bool is_only_a_name(const std::string& key) {
    return key == "model.preset";
}

/// Text of the configuration in the newest readable checkpoint in `directory`, or "" if there is none. Errors
/// (a damaged file, a file of another program, an unreadable directory) are left to whoever opens the run.
std::string newest_configuration(const std::string& directory) {
    try {
        for (const auto& [step, path] : list_checkpoints(directory)) {
            try {
                return read_header(Comm(), path).config;
            } catch (const UserError&) {
                continue;
            }
        }
    } catch (const UserError&) {
        return "";
    }
    return "";
}

}  // namespace

void keep_stored_values(const Comm& world, ParsedConfig& requested) {
    const std::string& directory = requested.config.run.dir;
    std::string text;
    if (world.rank() == 0) text = newest_configuration(RunDirectory::checkpoints_of(directory));
    text = broadcast(world, text);
    if (text.empty()) return;
    CheckpointHeader header;
    header.config = text;
    try {
        take_stored_values(requested.config, requested.given_keys, stored_config(header, directory),
                           method_options());
    } catch (const UserError&) {
        // a method that is not known here; restoring the checkpoint reports it
    }
}

std::string AllowedChange::line() const {
    return fmt::format("{}: {} -> {}{}", change.key, change.stored, change.requested,
                       effect.empty() ? "" : fmt::format(" ({})", effect));
}

namespace {

/// What is decided about a change: allowed with an effect on the run, or the reason for refusing it.
struct Verdict {
    std::string effect, refusal;
};

Verdict judge_steps(const Config& stored, const Config& requested, std::int64_t step) {
    const std::int64_t before = stored.run.steps, now = requested.run.steps;
    const OptimConfig& optim = stored.optim;
    if (now < before) return {"", "run.steps may only grow; run.stop_step ends a run earlier"};
    if (optim.schedule == "cosine")
        return {"",
                fmt::format("a cosine over {} steps differs at every step from one over {}", now, before)};
    if (step > 0 && lr_schedule(optim, step - 1, before) != lr_schedule(optim, step - 1, now))
        return {"", fmt::format("the decay of the learning rate had begun by step {}; resume from an earlier "
                                "checkpoint",
                                step)};
    return {"schedules follow the new number from here on", ""};
}

Verdict judge(const ConfigChange& change, const Config& stored, const Config& requested, std::int64_t step) {
    if (change.key == "run.steps") return judge_steps(stored, requested, step);
    const bool of_factors = change.key == "optim.lr";
    if (!of_factors && change.key != "optim.dense_lr") return {};
    const auto rate = [&](const Config& config) {
        return of_factors ? config.optim.lr : config.optim.dense_lr;
    };
    if (rate(requested) > rate(stored)) return {"", change.key + " may be lowered, not raised"};
    return {fmt::format("updates after step {} are made with the lower rate", step), ""};
}

/// How a new run can begin with what a checkpoint has.
std::string other_ways(const Config& stored, const std::string& path) {
    const bool weights = is_supported(stored, Use::start_run), all = is_supported(stored, Use::take_state);
    if (!weights && !all) return "";
    return fmt::format(", or start a new run in another run.dir with --run.init_from={}", path) +
           (all ? ", and --run.init_state=all to keep optimizer and position in the data" : "");
}

}  // namespace

std::vector<AllowedChange> check_resumable(const CheckpointHeader& header, const std::string& path,
                                           const Config& requested) {
    std::vector<AllowedChange> allowed;
    std::vector<std::string> refused, reasons{"the run would not be the one that was interrupted"};
    const Config stored = stored_config(header, path);
    for (const ConfigChange& change : compare_configs(stored, requested, method_options())) {
        if (is_only_a_name(change.key)) continue;
        const Verdict verdict = judge(change, stored, requested, header.step);
        if (change.allowed || !verdict.effect.empty()) {
            allowed.push_back({change, verdict.effect});
            continue;
        }
        refused.push_back(AllowedChange{change, ""}.line());
        if (!verdict.refusal.empty()) reasons.push_back(verdict.refusal);
    }
    require(refused.empty(),
            "the configuration differs from that of checkpoint `{}` (stored -> requested): {} ({}); use the "
            "stored values{}",
            path, fmt::join(refused, "; "), fmt::join(reasons, ". "), other_ways(stored, path));
    return allowed;
}

void check_data(const CheckpointHeader& header, const std::string& path, const TokenFile& tokens) {
    const DataIdentity now = identity_of(tokens.info());
    require(header.data.tokenizer == now.tokenizer,
            "token file `{}` was made with a different tokenizer from that of checkpoint `{}` (fingerprints "
            "{} and {}; its ids mean other words); give the token file of the run as data.tokens",
            tokens.path(), path, now.tokenizer, header.data.tokenizer);
    require(
        header.data.tokens == now.tokens,
        "token file `{}` holds different tokens from that of checkpoint `{}` (fingerprints {} and {}; the "
        "run would not be the one that was interrupted); give the token file of the run as data.tokens",
        tokens.path(), path, now.tokens, header.data.tokens);
}

void check_same_model(const Config& stored, const std::string& path, const Config& requested) {
    for (const ConfigChange& change : compare_configs(stored, requested, method_options())) {
        const bool of_model = change.key.rfind("model.", 0) == 0 && !change.allowed &&
                              !is_only_a_name(change.key) && change.key != "model.init_std";
        require(!of_model,
                "checkpoint `{}` is of another model: {} is {} there and {} here (its weights do not fit); "
                "set {} to {}",
                path, change.key, change.stored, change.requested, change.key, change.stored);
    }
}

void check_same_method(const Config& stored, const std::string& path, const Config& requested) {
    require_supported(stored, Use::take_state, path);
    for (const ConfigChange& change : compare_configs(stored, requested, method_options())) {
        const bool of_state = change.key.starts_with("method.") || change.key == "run.dtype" ||
                              change.key == "optim.state_bits" || change.key == "optim.min_8bit_size";
        require(
            !of_state,
            "checkpoint `{}` has {} = {} and this run {} (run.init_state = all takes the state of optimizer "
            "and method as it is); set the same, or use run.init_state = weights",
            path, change.key, change.stored, change.requested);
    }
}

}  // namespace switchyard

// A state that is taken whole must be of the same method and type; the optimizer's keys may differ. The data
// go on where the other run was only if the samples are the same ones in the same order.
#include "run/initial_state.hpp"

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/sign_of_life.hpp"
#include "methods/registry.hpp"
#include "run/inputs.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {
namespace {

void check_tokenizer(const CheckpointHeader& header, const std::string& path, const TokenFile& tokens) {
    require(
        header.data.tokenizer == identity_of(tokens.info()).tokenizer,
        "checkpoint `{}` was trained with a different tokenizer from that of `{}` (the same ids stand for "
        "different text); tokenize the text with the tokenizer of the checkpoint's token file",
        path, tokens.path());
}

/// Why sample i is not the one that the other run had; "" if it is.
std::string other_samples(const CheckpointHeader& header, const Config& stored, const Config& now,
                          const TokenFile& tokens) {
    if (header.data.tokens != identity_of(tokens.info()).tokens) return "the tokens differ";
    if (stored.data.seq_len != now.data.seq_len) return "data.seq_len differs";
    if (stored.run.seed != now.run.seed) return "run.seed, which orders the samples, differs";
    return "";
}

void read_all(TrainState& state, const CheckpointReader& reader, std::int64_t step,
              const CheckpointReader::Progress& progress) {
    StateIo io(reader);
    state.step = step;
    state.visit(io, progress);
    state.step = 0;
    state.weights_changed();
}

}  // namespace

InitialState take_initial_state(TrainState& state, const TokenFile& tokens,
                                const CheckpointReader::Progress& progress) {
    const Config& config = state.context.config;
    const Comm& world = state.context.topology.world;
    InitialState taken;
    if (config.run.init_from.empty()) {
        state.initialise();
        return taken;
    }
    taken.path = find_checkpoint(world, config.run.init_from);
    const CheckpointHeader header = read_header(world, taken.path);
    const bool all = config.run.init_state == "all";
    taken.step = header.step;
    agree_on(world, [&] {
        const Config stored = stored_config(header, taken.path);
        if (!all) require_supported(stored, Use::start_run, taken.path);
        check_same_model(stored, taken.path, config);
        check_tokenizer(header, taken.path, tokens);
        taken.warning = begin_token_warning(header.data, taken.path, tokens);
        if (!all) {
            taken.text = fmt::format(
                "weights of `{}` (step {}); left: optimizer, method and position in the data, which begin "
                "anew (run.init_state = all takes them too)",
                taken.path, header.step);
            return;
        }
        check_same_method(stored, taken.path, config);
        const std::string other = other_samples(header, stored, config, tokens);
        if (other.empty()) taken.first_sample = header.next_sample;
        taken.text =
            fmt::format("weights, optimizer and method of `{}` (step {}); ", taken.path, header.step) +
            (other.empty() ? fmt::format("the data go on at sample {}", taken.first_sample)
                           : fmt::format("left: position in the data ({}), which begin at sample 0", other)) +
            "; steps and schedules begin at 0";
    });
    sign_of_life("reading weights", 0);
    const CheckpointReader reader(world, taken.path);
    if (all)
        read_all(state, reader, header.step, progress);
    else
        state.initialise_from(reader, progress);
    return taken;
}

}  // namespace switchyard

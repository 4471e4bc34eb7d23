// eval and generate: use a checkpoint's weights on any number of ranks.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "comm/collectives.hpp"
#include "commands/commands.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/sign_of_life.hpp"
#include "inference/generation.hpp"
#include "inference/inference_state.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "run/inputs.hpp"
#include "run/watchdog.hpp"
#include "train/resume_rules.hpp"
#include "train/train_step.hpp"

namespace switchyard {
namespace {

/// A checkpoint and everything that is needed to run its model.
struct LoadedModel {
    std::string path;
    CheckpointHeader header;
    Config config;
    std::unique_ptr<TokenFile> tokens;
    std::optional<Topology> topology;
    Traffic traffic;
    std::unique_ptr<AllocatedInference> allocated;
    InferenceState& state() const { return *allocated->state; }
};

bool given(const Arguments& arguments, const std::string& key) {
    return std::any_of(arguments.settings.begin(), arguments.settings.end(),
                       [&](const std::string& s) { return s.rfind("--" + key + "=", 0) == 0; });
}

std::unique_ptr<LoadedModel> load(const Comm& world, const Arguments& arguments, Use use,
                                  const std::function<void(LoadedModel&)>& adjust) {
    auto model = std::make_unique<LoadedModel>();
    model->path = find_checkpoint(
        world, agreed(world, [&] { return only_file(arguments, "checkpoint or run directory"); }));
    model->header = read_header(world, model->path);
    Config& config = model->config =
        agreed(world, [&] { return stored_config(model->header, model->path, arguments.settings); });
    if (!given(arguments, "parallel.tp") && world.size() % config.parallel.tp != 0) config.parallel.tp = 1;
    model->tokens = open_tokens(world, config);
    agree_on(world, [&] {
        require_supported(config, use, model->path);
        require(
            identity_of(model->tokens->info()).tokenizer == model->header.data.tokenizer,
            "token file `{}` was made with a different tokenizer from that of checkpoint `{}` (its ids mean "
            "other words); make one with the run's: switchyard tokenize TEXT --tokenizer=FILE, FILE the "
            "token file of the run",
            config.data.tokens, model->path);
        adjust(*model);
        const std::int64_t at_once = world.size() / config.parallel.tp * config.data.micro_batch;
        if (config.data.global_batch % std::max<std::int64_t>(1, at_once) != 0)
            config.data.global_batch = at_once;
        validate_run(config, world.size());
    });
    model->topology.emplace(Topology::create(world, config.parallel.tp));
    model->allocated = allocate_inference(config, *model->topology, model->traffic);
    model->state().load(CheckpointReader(world, model->path));
    return model;
}

/// The tokens that documents of the model begin and end with, as stored in the checkpoint or, for checkpoints
/// of earlier versions, in the token file.
struct DocumentTokens {
    std::int32_t begin, end;
    /// The token before a text, as in training: the begin token or, without one, the end token of the
    /// previous document.
    std::int32_t first() const { return begin >= 0 ? begin : end; }
};

DocumentTokens document_tokens(const LoadedModel& model) {
    const TokenFileInfo& info = model.tokens->info();
    const DataIdentity& data = model.header.data;
    const DocumentTokens found{data.begin_token.value_or(info.begin_token),
                               data.end_token.value_or(-1) < 0 ? info.end_token : *data.end_token};
    require(std::max(found.begin, found.end) < info.vocab_size,
            "documents of checkpoint `{}` begin with token {} and end with {}, but `{}` has {} tokens (they "
            "do not belong together); give --data.tokens=FILE with the run's tokenizer",
            model.path, found.begin, found.end, model.tokens->path(), info.vocab_size);
    return found;
}

GenerationSettings generation_settings(const Arguments& arguments) {
    GenerationSettings settings;
    settings.max_tokens = arguments.integer("max_tokens", settings.max_tokens, 1);
    settings.temperature = arguments.real("temperature", settings.temperature, 0, 1e6);
    settings.top_k = arguments.integer("top_k", settings.top_k, 0);
    settings.seed = static_cast<std::uint64_t>(arguments.integer("seed", 0, 0));
    return settings;
}

}  // namespace

std::vector<CommandOption> eval_options() {
    return {
        {"json", "", "for programs: one object with step, loss, perplexity, targets"},
        {"data.tokens", "FILE", "evaluate on the validation tokens of another file of the same tokenizer"},
        {"data.seq_len", "N", "tokens in a sequence, instead of the run's"},
        {"data.micro_batch", "N", "sequences per rank at a time, instead of the run's"},
        {"data.mask_documents", "BOOL", "true or false; default: as in the run"},
        {"parallel.tp", "N", "ranks in a tensor-parallel group; all ranks, or a divisor of them"},
        {"parallel.shard_frozen", "BOOL", "frozen weights split over dp as well"},
        hang_timeout_option()};
}

int run_eval(const CommandContext& context, const Arguments& arguments) {
    const Watchdog watchdog(agreed(context.world, [&] { return hang_timeout(arguments); }),
                            context.world.rank());
    const auto model = load(context.world, arguments, Use::evaluate, [](LoadedModel&) {});
    const DataConfig& data = model->config.data;
    open_for_batches(*model->topology, *model->tokens);
    const TokenLoader loader = agreed(context.world, [&] {
        TokenLoader opened(*model->tokens, data.seq_len, model->config.run.seed, data.mask_documents);
        require(opened.num_validation_targets() > 0,
                "token file `{}` has no validation tokens (there is nothing to evaluate on); tokenize with "
                "--validation",
                data.tokens);
        return opened;
    });
    const std::string warning = begin_token_warning(model->header.data, model->path, *model->tokens);
    if (context.world.rank() == 0 && !warning.empty()) print_error("switchyard eval: warning: {}", warning);
    const double loss = validation_loss(model->state().context, model->state().model, loader,
                                        [] { sign_of_life("evaluation"); });
    require<AgreedError>(std::isfinite(loss),
                         "the validation loss of `{}` is {} (its weights are not finite, or give values that "
                         "are not); use an earlier checkpoint",
                         model->path, loss);
    if (context.world.rank() != 0) return 0;
    if (arguments.has("json")) {
        const nlohmann::ordered_json result{{"checkpoint", model->path},
                                            {"step", model->header.step},
                                            {"loss", loss},
                                            {"perplexity", std::exp(loss)},
                                            {"targets", loader.num_validation_targets()},
                                            {"tokens", data.tokens}};
        print_result("{}\n", result.dump());
    } else {
        print_result("step {}: validation loss {:.4f}, perplexity {:.2f} over {} tokens of {}\n",
                     model->header.step, loss, std::exp(loss), loader.num_validation_targets(), data.tokens);
    }
    return 0;
}

std::vector<CommandOption> generate_options() {
    return {{"prompt", "TEXT", "what the text begins with"},
            {"max_tokens", "200", "tokens at most"},
            {"temperature", "0.8", "0: always the most likely token"},
            {"top_k", "50", "draw from that many most likely tokens; 0: from all"},
            {"seed", "0", "key of the draws"},
            {"data.tokens", "FILE", "where the tokenizer is, if the run's token file has moved"},
            {"data.seq_len", "N", "tokens of context, instead of the run's"},
            {"data.mask_documents", "BOOL", "true or false; default: as in the run"},
            {"parallel.tp", "N", "ranks in a tensor-parallel group; all ranks, or a divisor of them"},
            {"parallel.shard_frozen", "BOOL", "frozen weights split over dp as well"},
            hang_timeout_option()};
}

int run_generate(const CommandContext& context, const Arguments& arguments) {
    const Watchdog watchdog(agreed(context.world, [&] { return hang_timeout(arguments); }),
                            context.world.rank());
    GenerationSettings settings = agreed(context.world, [&] { return generation_settings(arguments); });
    std::optional<Tokenizer> tokenizer;
    std::vector<std::int32_t> context_ids;
    const auto model = load(context.world, arguments, Use::generate, [&](LoadedModel& m) {
        tokenizer.emplace(tokenizer_of(*m.tokens));
        context_ids = tokenizer->encode(arguments.text("prompt", ""));
        context_ids.insert(context_ids.begin(), document_tokens(m).first());
        DataConfig& data = m.config.data;
        data.micro_batch = 1;
        data.seq_len =
            std::min(data.seq_len, static_cast<std::int64_t>(context_ids.size()) + settings.max_tokens);
    });
    const bool speaks = context.world.rank() == 0;
    const TokenFileInfo& info = model->tokens->info();
    settings.end_token = document_tokens(*model).end;
    settings.num_tokens = info.vocab_size;
    TextStream stream(*tokenizer, {context_ids.begin() + 1, context_ids.end()});
    if (speaks) stream.print();
    generate(model->state(), settings, context_ids, [&](std::int32_t token) {
        sign_of_life("a token");
        if (!speaks) return;
        stream.add(token);
        stream.print();
    });
    if (speaks) stream.finish();
    return 0;
}

}  // namespace switchyard

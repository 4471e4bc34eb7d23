// The story of a run, told once for all ranks: they agree on whatever decides its course, and `record_` shows
// it to people.
#include "run/trainer.hpp"

#include <cmath>

#include "comm/collectives_choice.hpp"
#include "comm/failure.hpp"
#include "core/backend_memory.hpp"
#include "core/sign_of_life.hpp"
#include "core/trace.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "run/initial_state.hpp"
#include "run/inputs.hpp"
#include "train/attention_choice.hpp"
#include "train/finite.hpp"
#include "train/replicas.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {

int train(const Comm& world, ParsedConfig given, const StartInfo& start) {
    Config& config = given.config;
    StopRequests requests(world, config.run.dir, start.time_s, config.run.wall_limit);
    const std::unique_ptr<TokenFile> tokens = open_tokens(world, config);
    keep_stored_values(world, given);
    agree_on(world, [&] {
        resolve_auto(config);
        validate_run(config, world.size());
        choose_collectives(collectives_choice(config.parallel.collectives, config.parallel.sum_order));
    });
    // Until the trainer has one that writes into the run's record: a rank alone may fail to start NCCL, and
    // the others would wait in it for ever.
    std::optional<Watchdog> watchdog(std::in_place, config.run.hang_timeout, world.rank());
    const Topology topology = Topology::create(world, config.parallel.tp);
    // Before anything is computed that would be lost; one after the other, because a rank may fail alone.
    sign_of_life("choosing collectives");
    agree_on(world, [&] { collectives_text(topology.tp); });
    agree_on(world, [&] { collectives_text(topology.dp); });
    sign_of_life("choosing attention");
    const std::string attention = agreed(world, [&] { return choose_attention(topology, config); });
    sign_of_life("opening tokens");
    open_for_batches(topology, *tokens);
    auto trainer =
        agreed(world, [&] { return std::make_unique<Trainer>(topology, config, *tokens, requests); });
    watchdog.reset();
    try {
        return trainer->run(start, attention);
    } catch (...) {
        // Not destroyed: collectives under way would wait for ranks that may not have failed.
        (void)trainer.release();
        throw;
    }
}

Trainer::Trainer(const Topology& topology, const Config& config, const TokenFile& tokens,
                 StopRequests& requests)
    : topology_(topology),
      config_(config),
      tokens_(tokens),
      requests_(requests),
      fault_(topology.world.rank()),
      traced_(step_range("run.trace_steps", config.run.trace_steps)),
      loader_(tokens, config.data.seq_len, config.run.seed, config.data.mask_documents),
      record_(topology.world, config) {}

int Trainer::run(const StartInfo& start, const std::string& attention) {
    try {
        record_.open();
        watchdog_.emplace(config_.run.hang_timeout, topology_.world.rank(),
                          [this](const std::string& problem) { record_.last_words(problem); });
        note_terminations();
        build_state();
        restore_or_initialise();
        record_.announce(environment(topology_, start, attention), scale_);
        if (loader_.num_validation_targets() == 0)
            record_.say(fmt::format("note        `{}` has no validation tokens: val_loss is not computed",
                                    config_.data.tokens));
        return finish(train_steps());
    } catch (const std::exception& error) {
        wait_for_lower_ranks(topology_.world.rank(), error);
        record_.failed(message_of(error));
        throw;
    }
}

void Trainer::build_state() {
    // The rate of products is measured on all ranks at once, as in training.
    barrier(topology_.world);
    scale_.peak_flops = all_reduce_sum(topology_.world, peak_flops(config_.run));
    backend::reset_peak_used_bytes();
    start_up_bytes_ = backend::used_bytes();
    sign_of_life("building the state", 0);
    allocated_ = allocate_state(config_, topology_, traffic_);
    const FlopsModel flops = flops_model(state());
    scale_.tokens_per_step = flops.tokens_per_step;
    scale_.flops_per_token = flops_per_token(flops);
    checkpoints_.emplace(topology_.world, RunDirectory::checkpoints_of(config_.run.dir), config_,
                         identity_of(tokens_.info()));
    if (!config_.run.async_save) return;
    const std::string problem = checkpoints_->save_in_background(topology_, checkpoint_bytes(state()));
    if (!problem.empty())
        record_.say("note        checkpoints are written in the foreground (run.async_save needs " + problem +
                    "); use more nodes to save in the background");
}

void Trainer::restore_or_initialise() {
    std::vector<AllowedChange> changes;
    const auto check = [&](const CheckpointHeader& header, const std::string& path) {
        changes = check_resumable(header, path, config_);
        check_data(header, path, tokens_);
        first_sample_ = header.next_sample - header.step * config_.data.global_batch;
    };
    const auto progress = [this](std::uint64_t done, std::uint64_t all) { record_.reading(done, all); };
    if (const auto path = checkpoints_->restore(state(), check, progress))
        return record_.resumed(*path, changes, state().step);
    const InitialState from = take_initial_state(state(), tokens_, progress);
    first_sample_ = from.first_sample;
    record_.started(from);
}

Stop Trainer::train_steps() {
    try {
        return steps_to_the_end();
    } catch (const NotFinite& problem) {
        end_save(Checkpoints::Wait::yes);
        fail<AgreedError>("{} {}", problem.what(), checkpoints_->advice_after_divergence(state().step));
    }
}

Stop Trainer::steps_to_the_end() {
    const std::int64_t last_step = config_.run.last_step();
    while (state().step < last_step) {
        StepFigures figures = one_step();
        fault_.flip(state().step, state().model);
        if (at_interval(config_.run.check_replicas)) compare_replicas(state());
        const bool last = state().step == last_step;
        if ((last || at_interval(config_.run.eval_interval)) && loader_.num_validation_targets() > 0) {
            const double start = seconds_now();
            figures.val_loss = evaluate();
            figures.eval_s = seconds_now() - start;
        }
        record_.step(figures, requests_.remaining_s());
        if (last) break;
        end_save(Checkpoints::Wait::no);
        const StopDecision decision = requests_.agree(record_.needed_s(checkpoints_->under_way()));
        if (decision.stop != Stop::none) {
            record_.stopping(decision.stop);
            save_now();
            return decision.stop;
        }
        if (decision.save || at_interval(config_.run.save_interval)) begin_save();
    }
    save_now();
    return Stop::none;
}

StepFigures Trainer::one_step() {
    const std::int64_t number = state().step + 1;
    sign_of_life("begin", number);
    fault_.strike(state().step, state().model);
    StepFigures figures;
    figures.phases.on_lap([number](Phase phase) { sign_of_life(name_of(phase), number); });
    const Traffic before = traffic_;
    const double start = seconds_now();
    if (number == traced_.first) backend::begin_capture();
    figures.result = train_step(state(), loader_, first_sample_, figures.phases);
    if (number == traced_.last) backend::end_capture();
    figures.step_s = seconds_now() - start;
    figures.step = state().step;
    for (int g = 0; g < num_traffic_groups; ++g) figures.sent.bytes[g] = traffic_.bytes[g] - before.bytes[g];
    return figures;
}

double Trainer::evaluate() {
    const double loss =
        validation_loss(state(), loader_, [this] { sign_of_life("evaluation", state().step); });
    require<NotFinite>(std::isfinite(loss), "step {}: the validation loss {} is not finite", state().step,
                       loss);
    return loss;
}

void Trainer::begin_save() {
    end_save(Checkpoints::Wait::yes);
    check_before_save();
    checkpoints_->begin(state(), first_sample_, fault_.holds(state().step));
    if (checkpoints_->under_way()) record_.saving();
    end_save(Checkpoints::Wait::no);
}

void Trainer::end_save(Checkpoints::Wait wait) {
    if (const auto report = checkpoints_->ended(wait)) record_.saved(*report);
}

void Trainer::save_now() {
    end_save(Checkpoints::Wait::yes);
    if (checkpoints_->newest_step() == state().step) return;
    check_before_save();
    record_.saved(checkpoints_->save(state(), first_sample_));
}

void Trainer::check_before_save() {
    record_.check_lock();
    const std::string bad = first_bad_weight(state());
    require<NotFinite>(bad.empty(), "step {}: weight {} is not finite after the update, and is not saved",
                       state().step, bad);
}

int Trainer::finish(Stop stop) {
    sign_of_life("finishing", state().step);
    const bool requeue = wants_requeue(stop),
               finished = stop == Stop::none && state().step == config_.run.steps;
    const double process = backend::peak_used_bytes();
    record_.finished(requeue    ? "requeue"
                     : finished ? "finished"
                                : "stopped",
                     stop != Stop::none ? reason_of(stop)
                     : finished         ? "run.steps"
                                        : "run.stop_step",
                     {memory_of(allocated_->arena), process > 0 ? process - start_up_bytes_ : 0,
                      static_cast<double>(backend::used_pinned_bytes())});
    return requeue ? exit_requeue : exit_done;
}

}  // namespace switchyard

// Rank 0 alone writes and prints; everything that decides the course of a run is agreed on by all ranks.
#include "run/trainer.hpp"

#include <algorithm>

#include "comm/failure.hpp"
#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/units.hpp"
#include "core/version.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "kernels/matmul.hpp"
#include "run/inputs.hpp"
#include "run/resume_rules.hpp"

namespace switchyard {

using nlohmann::ordered_json;

int train(const Comm& world, const Config& given, const StartInfo& start) {
    StopRequests requests(world, given.run.dir, start.time_s, given.run.wall_limit);
    Config config = given;
    const std::unique_ptr<TokenFile> tokens = open_tokens(world, config);
    agree_on(world, [&] {
        resolve_method_options(config);
        validate(config, world.size());
    });
    const Topology topology = Topology::create(world, config.parallel.tp);
    auto trainer =
        agreed(world, [&] { return std::make_unique<Trainer>(topology, config, *tokens, start, requests); });
    try {
        return trainer->run();
    } catch (...) {
        // Not destroyed: collectives under way would wait for ranks that may not have failed.
        (void)trainer.release();
        throw;
    }
}

Trainer::Trainer(const Topology& topology, const Config& config, const TokenFile& tokens,
                 const StartInfo& start, StopRequests& requests)
    : topology_(topology),
      config_(config),
      tokens_(tokens),
      start_(start),
      requests_(requests),
      fault_(topology.world.rank()),
      loader_(tokens, config.data.seq_len, config.run.seed, config.data.mask_documents),
      progress_(config.run.log_interval) {}

int Trainer::run() {
    open_directory();
    try {
        return run_guarded();
    } catch (const std::exception& error) {
        yield_to_lower_ranks(topology_.world.rank(), error);
        progress_.end_line();
        if (!was_finished_)
            write_status("failed", message_of(error));
        else if (speaks())
            write_status(finished_);  // a refused start takes nothing from it
        throw;
    }
}

int Trainer::run_guarded() {
    const auto last_words = [this](const std::string& problem) {
        const auto status = read_run_status(config_.run.dir);
        if (!status || status->outcome != "failed")
            write_status("failed", problem);  // the first rank's stays
    };
    watchdog_ = std::make_unique<Watchdog>(config_.run.hang_timeout, topology_.world.rank(), last_words);
    measure_peak();
    build_state();
    restore_or_initialise();
    known_step_ = 0;
    announce();
    return finish(train_steps());
}

void Trainer::open_directory() {
    agree_on(topology_.world, [&] {
        if (!speaks()) return;
        directory_.emplace(config_.run.dir);
        log_.emplace(directory_->log());
        if (const auto before = directory_->read_status()) {
            known_step_ = before->step;
            if (before->outcome == "finished") finished_ = *before;
        }
        write_status("running", "");
    });
    was_finished_ = all_reduce_max(topology_.world, finished_.outcome.empty() ? 0.0 : 1.0) > 0;
}

/// Of all ranks together, and at the same time, as in training.
void Trainer::measure_peak() {
    barrier(topology_.world);
    scale_.peak_flops =
        all_reduce_sum(topology_.world, kernels::measure_peak_flops(dtype_from_name(config_.run.dtype)));
    reset_peak_resident();
    start_up_bytes_ = resident_bytes();
}

void Trainer::build_state() {
    watchdog_->event("building the state", 0);
    allocated_ = allocate_state(config_, topology_, traffic_);
    const FlopsModel flops = flops_model(state());
    scale_.tokens_per_step = flops.tokens_per_step;
    scale_.flops_per_token = flops_per_token(flops);
    checkpoints_.emplace(topology_.world, RunDirectory::checkpoints_of(config_.run.dir), config_,
                         identity_of(tokens_.info()));
    checkpoints_->on_progress([this] { watchdog_->event("reading or writing a checkpoint", state().step); });
}

void Trainer::restore_or_initialise() {
    std::vector<std::string> changes;
    const auto check = [&](const CheckpointHeader& header, const std::string& path) {
        changes = check_resumable(header, path, config_);
        check_data(header, path, tokens_);
        first_sample_ = header.next_sample - header.step * config_.data.global_batch;
    };
    const std::optional<std::string> path = checkpoints_->restore(state(), check);
    totals_.first_step = state().step;
    if (path) {
        std::int64_t superseded = 0;
        if (speaks()) superseded = log_->move_aside_beyond(state().step);
        log_event("resume", {{"checkpoint", *path}, {"superseded_lines", superseded}, {"changes", changes}});
        if (speaks()) {
            progress_.line(fmt::format("resuming from step {} ({})", state().step, *path));
            for (const std::string& change : changes) progress_.line("changed     " + change);
        }
        return;
    }
    if (config_.run.init_from.empty()) {
        state().initialise();
    } else {
        const std::string& source = config_.run.init_from;
        const CheckpointHeader header = read_header(topology_.world, source);
        agree_on(topology_.world, [&] {
            check_same_model(stored_config(header, source), source, config_);
            require(header.data.tokenizer == identity_of(tokens_.info()).tokenizer,
                    "checkpoint `{}` was trained with another tokenizer than that of `{}` (its ids mean "
                    "other words) "
                    "tokenize the text with the tokenizer of its token file",
                    source, config_.data.tokens);
        });
        watchdog_->event("reading weights", 0);
        state().initialise_from(CheckpointReader(topology_.world, source));
    }
    if (speaks()) log_->move_aside_beyond(-1);  // of a run without a checkpoint: it starts again
    log_event("start", config_.run.init_from.empty() ? ordered_json::object()
                                                     : ordered_json{{"init_from", config_.run.init_from}});
}

void Trainer::announce() {
    const ordered_json description = environment(topology_, start_);
    was_finished_ = false;
    if (!speaks()) return;
    directory_->write_config(config_text(config_, method_options()));
    directory_->write_environment(description);
    write_status("running", "");
    progress_.line(fmt::format("{}, run directory {}", version_text(), config_.run.dir));
    const Plan plan = make_plan(config_, topology_.world.size(), 0, 0);
    for (const std::string& line : start_lines(config_, plan, kernels::num_threads(), scale_.peak_flops))
        progress_.line(line);
    progress_.line(memory_line(plan));
    if (const std::string crowding = crowding_text(description); !crowding.empty())
        progress_.line("warning     " + crowding);
    logged_ = longest_times(directory_->log());
    say_signal_lead();
}

std::int64_t Trainer::last_step() const {
    return config_.run.stop_step > 0 ? config_.run.stop_step : config_.run.steps;
}

Stop Trainer::train_steps() {
    while (state().step < last_step()) {
        StepFigures figures = one_step();
        const bool last = state().step == last_step();
        if (last || at_interval(config_.run.eval_interval)) figures.val_loss = evaluate();
        record(figures);
        if (speaks()) {
            const double eta_s = mean_step_s_ * static_cast<double>(last_step() - state().step);
            progress_.step(
                {state().step, last_step(), figures.result.loss, figures.result.lr, figures.result.grad_norm,
                 scale_.rate(mean_step_s_), scale_.mfu(scale_.flops_per_token.dense, mean_step_s_), eta_s,
                 requests_.remaining_s(), figures.val_loss.value_or(0), figures.val_loss.has_value()});
        }
        if (last) break;
        const double needed_s = 2 * longest_step_s_ + 1.5 * expected_save_s() + 1;
        const StopDecision decision = requests_.agree(needed_s);
        if (decision.stop != Stop::none) {
            log_event("signal", {{"reason", reason_of(decision.stop)}});
            save();
            return decision.stop;
        }
        if (decision.save || at_interval(config_.run.save_interval)) save();
    }
    if (checkpoints_->newest_step() != state().step) save();
    return Stop::none;
}

StepFigures Trainer::one_step() {
    const std::int64_t number = state().step + 1;
    watchdog_->event("begin", number);
    fault_.strike(state().step, state().model);
    StepFigures figures;
    figures.phases.on_lap([&](Phase phase) { watchdog_->event(name_of(phase), number); });
    const Traffic before = traffic_;
    const double start = seconds_now();
    figures.result = train_step(state(), loader_, first_sample_, figures.phases);
    figures.step_s = seconds_now() - start;
    figures.step = state().step;
    for (int g = 0; g < num_traffic_groups; ++g) figures.sent.bytes[g] = traffic_.bytes[g] - before.bytes[g];
    mean_step_s_ = totals_.steps == 0 ? figures.step_s : 0.95 * mean_step_s_ + 0.05 * figures.step_s;
    longest_step_s_ = std::max(longest_step_s_, figures.step_s);
    totals_.add(figures);
    return figures;
}

double Trainer::evaluate() {
    const double start = seconds_now();
    const double loss =
        validation_loss(state(), loader_, [this] { watchdog_->event("evaluation", state().step); });
    longest_step_s_ = std::max(longest_step_s_, mean_step_s_ + seconds_now() - start);
    last_val_loss_ = loss;
    return loss;
}

void Trainer::record(const StepFigures& figures) {
    if (speaks()) log_->write(step_record(figures, scale_));
}

void Trainer::save() {
    agree_on(topology_.world, [&] {
        if (speaks()) directory_->check_lock();
    });
    const SaveReport report = checkpoints_->save(state(), first_sample_);
    log_event("save", {{"checkpoint", report.path}, {"bytes", report.bytes}, {"seconds", report.seconds}});
    if (!speaks()) return;
    write_status("running", "");
    progress_.line(
        fmt::format("saved {} ({} in {:.2f} s)", report.path, bytes_text(report.bytes), report.seconds));
    logged_.save_s = std::max(logged_.save_s, report.seconds);
    say_signal_lead();
}

double Trainer::expected_save_s() const {
    return logged_.save_s > 0 ? logged_.save_s : checkpoints_->expected_save_s(state());
}

/// At the start, and when a save changes the verdict. Rank 0.
void Trainer::say_signal_lead() {
    if (config_.run.signal_lead <= 0) return;
    logged_.step_s = std::max(logged_.step_s, longest_step_s_);
    const SignalLead lead = judge_signal_lead(config_.run.signal_lead, logged_, expected_save_s());
    const int verdict = 2 * (logged_.save_s > 0) + lead.enough;
    if (verdict != lead_verdict_) progress_.line((lead.enough ? "signal      " : "warning     ") + lead.text);
    lead_verdict_ = verdict;
}

int Trainer::finish(Stop stop) {
    const bool requeue = wants_requeue(stop),
               finished = stop == Stop::none && state().step == config_.run.steps;
    const char* outcome = requeue ? "requeue" : finished ? "finished" : "stopped";
    const std::string reason = stop != Stop::none ? reason_of(stop)
                               : finished         ? "run.steps"
                                                  : "run.stop_step";
    watchdog_->event("finishing", state().step);
    if (speaks()) {
        write_status(outcome, reason);  // first: a batch system may end the process while it reports
        const Plan plan = make_plan(config_, topology_.world.size(), 0,
                                    std::min(max_planned_steps, std::max<std::int64_t>(1, state().step)));
        const double process = peak_resident_bytes();
        const MeasuredMemory measured{memory_of(allocated_->arena),
                                      process > 0 ? process - start_up_bytes_ : 0};
        for (const std::string& line : finish_lines(plan, scale_, totals_, measured)) progress_.line(line);
        for (const std::string& line : call_count_lines()) progress_.line(line);
        progress_.line(fmt::format("{} at step {} ({}){}", outcome, state().step, reason,
                                   requeue ? ", start the same command again to go on" : ""));
        ordered_json details{{"outcome", outcome}, {"reason", reason}};
        if (last_val_loss_) details["val_loss"] = *last_val_loss_;
        details["memory"] = {{"planned", json_of(plan.rank.memory)},
                             {"arena", json_of(measured.arena)},
                             {"process", static_cast<std::int64_t>(measured.process_bytes)}};
        log_event("finish", details);
    }
    return requeue ? exit_requeue : exit_done;
}

void Trainer::log_event(const char* event, ordered_json details) {
    if (!speaks()) return;
    ordered_json record{{"event", event},
                        {"step", state().step},
                        {"time", utc_time()},
                        {"dp", topology_.dp_size()},
                        {"tp", topology_.tp_size()}};
    record.update(details);
    log_->write(record);
}

/// Also from ranks other than 0, when they fail alone.
void Trainer::write_status(const char* outcome, const std::string& reason) {
    write_status({outcome, reason, allocated_ ? std::max(known_step_, state().step) : known_step_, ""});
}

void Trainer::write_status(const RunStatus& status) {
    try {
        write_run_status(config_.run.dir, status);
    } catch (const UserError& problem) {
        fmt::print(stderr, "warning: {}\n", problem.what());
    }
}

}  // namespace switchyard

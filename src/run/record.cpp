// Functions that are not collective return at once on other ranks (`directory_` is rank 0's).
#include "run/record.hpp"

#include <algorithm>

#include "comm/collectives.hpp"
#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/units.hpp"
#include "core/version.hpp"
#include "kernels/matmul.hpp"
#include "run/environment.hpp"

namespace switchyard {

using nlohmann::ordered_json;

namespace {

constexpr double assumed_write_rate = 100e6;  // B/s, before a save was measured

}  // namespace

Record::Record(const Comm& world, const Config& config)
    : world_(world), config_(config), progress_(config.run.log_interval) {}

void Record::open() {
    agree_on(world_, [&] {
        if (world_.rank() != 0) return;
        directory_.emplace(config_.run.dir);
        log_.emplace(directory_->log());
        before_ = directory_->read_status();
        if (before_) step_ = before_->step;
        write_status({"running", "", step_, ""});
    });
    was_finished_ = all_reduce_max(world_, before_ && before_->outcome == "finished") > 0;
    opened_ = true;
}

void Record::check_lock() const {
    agree_on(world_, [&] {
        if (directory_) directory_->check_lock();
    });
}

void Record::reading(std::uint64_t done, std::uint64_t all) {
    if (directory_) progress_.amount("of the checkpoint are read", done, all, seconds_now());
}

void Record::resumed(const std::string& checkpoint, const std::vector<AllowedChange>& changes,
                     std::int64_t step) {
    step_ = totals_.first_step = step;
    if (!directory_) return;
    const std::int64_t superseded =
        log_->move_aside_beyond(step, [&](const ordered_json& line) { logged_.add(line); });
    std::vector<std::string> lines;
    for (const AllowedChange& change : changes) lines.push_back(change.line());
    log_event("resume", {{"checkpoint", checkpoint}, {"superseded_lines", superseded}, {"changes", lines}});
    progress_.line(fmt::format("resuming from step {} ({})", step, checkpoint));
    for (const std::string& line : lines) progress_.line("changed     " + line);
    bool another_run = false;
    for (const auto& [change, effect] : changes) {
        if (effect.empty()) continue;
        another_run = true;
        log_event("change", {{"key", change.key},
                             {"stored", change.stored},
                             {"requested", change.requested},
                             {"effect", effect}});
    }
    if (another_run)
        progress_.line("note        from here on the run is not bit for bit the one that was interrupted");
}

void Record::started(const InitialState& from) {
    step_ = 0;
    if (!directory_) return;
    log_->move_aside_beyond(-1);  // of a run without a checkpoint: it starts again
    ordered_json details{{"lr", config_.optim.lr}, {"dense_lr", config_.optim.dense_lr}};
    if (!from.path.empty()) {
        details["init_from"] = from.path;
        details["init_state"] = config_.run.init_state;
        details["init_step"] = from.step;
        details["first_sample"] = from.first_sample;
        progress_.line("init        " + from.text);
        if (!from.warning.empty()) progress_.line("warning     " + from.warning);
    }
    log_event("start", details);
}

void Record::announce(const ordered_json& environment, const RunScale& scale) {
    scale_ = scale;
    was_finished_ = false;
    if (!directory_) return;
    directory_->write_config(config_text(config_, method_options()));
    directory_->write_environment(environment);
    write_status({"running", "", step_, ""});
    progress_.line(fmt::format("{}, run directory {}", version_text(), config_.run.dir));
    plan_ = make_plan(config_, world_.size(), 0, std::min(max_planned_steps, config_.run.last_step()));
    for (const std::string& line : start_lines(config_, plan_, kernels::num_threads(), scale.peak_flops))
        progress_.line(line);
    progress_.line(memory_line(plan_));
    for (const std::string& line : rank_lines(environment)) progress_.line(line);
    if (const std::string crowding = crowding_text(environment); !crowding.empty())
        progress_.line("warning     " + crowding);
    if (const std::string idle = idle_text(environment); !idle.empty()) progress_.line("note        " + idle);
    say_signal_lead();
}

void Record::say(const std::string& line) {
    if (directory_) progress_.line(line);
}

void Record::step(const StepFigures& x, double remaining_s) {
    step_ = x.step;
    if (!directory_) return;
    mean_step_s_ = totals_.steps == 0 ? x.step_s : 0.95 * mean_step_s_ + 0.05 * x.step_s;
    longest_step_s_ = std::max({longest_step_s_, x.step_s, x.val_loss ? mean_step_s_ + x.eval_s : 0.0});
    totals_.add(x);
    if (x.val_loss) last_val_loss_ = x.val_loss;
    log_->write(step_record(x, scale_));
    const std::int64_t last = config_.run.last_step();
    progress_.step({x.step, last, x.result.loss, x.result.lr, x.result.grad_norm, scale_.rate(mean_step_s_),
                    scale_.mfu(scale_.flops_per_token.dense, mean_step_s_),
                    mean_step_s_ * static_cast<double>(last - x.step), remaining_s, x.val_loss.value_or(0),
                    x.val_loss.has_value()});
}

void Record::saving() {
    if (directory_) log_event("save_begun");
}

void Record::saved(const SaveReport& report) {
    if (!directory_) return;
    if (!report.problem.empty()) {
        log_event("save_failed",
                  {{"checkpoint", report.path}, {"of_step", report.step}, {"problem", report.problem}});
        progress_.end_line();
        print_error(
            "warning: step {} was not saved: {}\n  older checkpoints are untouched and the run goes on",
            report.step, report.problem);
        return;
    }
    log_event("save", {{"checkpoint", report.path},
                       {"of_step", report.step},
                       {"bytes", report.bytes},
                       {"seconds", report.seconds},
                       {"stalled_s", report.stalled}});
    write_status({"running", "", step_, ""});
    progress_.line(fmt::format("saved {} ({} in {:.2f} s{})", report.path, bytes_text(report.bytes),
                               report.seconds,
                               report.seconds > 1.5 * report.stalled
                                   ? fmt::format(", training stood still for {:.2f} s", report.stalled)
                                   : ""));
    if (report.counts) progress_.line(counts_line(*report.counts, world_.size()));
    logged_.save_s = std::max(logged_.save_s, report.seconds);
    say_signal_lead();
}

void Record::stopping(Stop stop) {
    if (directory_) log_event("signal", {{"reason", reason_of(stop)}});
}

void Record::finished(const char* outcome, const std::string& reason, const MeasuredMemory& measured) {
    if (!directory_) return;
    write_status({outcome, reason, step_, ""});  // first: a batch system may end the process while it reports
    for (const std::string& line : finish_lines(plan_, scale_, totals_, measured)) progress_.line(line);
    for (const std::string& line : call_count_lines()) progress_.line(line);
    progress_.line(
        fmt::format("{} at step {} ({}){}", outcome, step_, reason,
                    outcome == std::string("requeue") ? ", start the same command again to go on" : ""));
    ordered_json details{{"outcome", outcome}, {"reason", reason}};
    if (last_val_loss_) details["val_loss"] = *last_val_loss_;
    details["memory"] = {{"planned", json_of(plan_.rank.memory)},
                         {"arena", json_of(measured.arena)},
                         {"process", static_cast<std::int64_t>(measured.process_bytes)},
                         {"pinned_planned", static_cast<std::int64_t>(plan_.pinned_bytes)},
                         {"pinned", static_cast<std::int64_t>(measured.pinned_bytes)}};
    log_event("finish", details);
}

void Record::failed(const std::string& problem) {
    progress_.end_line();
    if (!opened_) return;
    if (!was_finished_)
        write_status({"failed", problem, step_, ""});
    else if (before_)
        write_status(*before_);  // a refused start takes nothing from it
}

void Record::last_words(const std::string& problem) const {
    const auto status = read_run_status(config_.run.dir);
    if (!status || status->outcome != "failed") write_status({"failed", problem, step_, ""});
}

double Record::needed_s(bool save_under_way) const {
    return directory_ ? 2 * longest_step_s_ + 1.5 * (1 + save_under_way) * expected_save_s() + 1 : 0;
}

double Record::expected_save_s() const {
    return logged_.save_s > 0 ? logged_.save_s
                              : static_cast<double>(plan_.checkpoint_bytes) / assumed_write_rate;
}

/// Called at the start and after every save; speaks when the verdict has changed.
void Record::say_signal_lead() {
    if (config_.run.signal_lead <= 0) return;
    logged_.step_s = std::max(logged_.step_s, longest_step_s_);
    const SignalLead lead = judge_signal_lead(config_.run.signal_lead, logged_, expected_save_s());
    const int verdict = 2 * (logged_.save_s > 0) + lead.enough;
    if (verdict != lead_verdict_) progress_.line((lead.enough ? "signal      " : "warning     ") + lead.text);
    lead_verdict_ = verdict;
}

void Record::log_event(const char* event, ordered_json details) {
    const std::int64_t ranks = world_.size(), tp = config_.parallel.tp;
    ordered_json record{
        {"event", event}, {"step", step_}, {"time", utc_time()}, {"dp", ranks / tp}, {"tp", tp}};
    record.update(details);
    log_->write(record);
}

void Record::write_status(const RunStatus& status) const {
    try {
        write_run_status(config_.run.dir, status);
    } catch (const UserError& problem) {
        print_error("warning: {}", problem.what());
    }
}

}  // namespace switchyard

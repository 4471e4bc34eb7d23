// Trainer: a run from its configuration to its exit code: config -> topology -> tokens -> state -> restore or
// initialise -> steps -> evaluations, saves, requests to stop -> finish.
#pragma once

#include <memory>
#include <optional>

#include "config/step_range.hpp"
#include "io/tokens/token_loader.hpp"
#include "run/environment.hpp"
#include "run/record.hpp"
#include "run/stop_requests.hpp"
#include "run/test_fault.hpp"
#include "run/watchdog.hpp"
#include "saving/checkpoints.hpp"

namespace switchyard {

inline constexpr int exit_done = 0, exit_requeue = 75;

/// Starts or resumes the run directory of a configuration. Collective over the world. Returns the exit
/// code: exit_requeue after SIGUSR1 or run.wall_limit, else exit_done. Throws on errors; status.json then
/// says `failed`.
int train(const Comm& world, ParsedConfig given, const StartInfo&);

class Trainer {
  public:
    /// config: complete and validated.
    Trainer(const Topology&, const Config&, const TokenFile&, StopRequests&);
    /// `attention`: as environment() takes it.
    int run(const StartInfo&, const std::string& attention);

  private:
    void build_state();
    void restore_or_initialise();
    /// Calls steps_to_the_end(); adds advice to the error if numbers are not finite.
    Stop train_steps();
    Stop steps_to_the_end();
    StepFigures one_step();
    double evaluate();
    /// Begins a save, in the background where that is possible; a failure is reported and does not end the
    /// run.
    void begin_save();
    void end_save(Checkpoints::Wait);
    /// Saves and waits until the file of this step is there; throws if it cannot be written.
    void save_now();
    void check_before_save();
    int finish(Stop);

    bool at_interval(std::int64_t interval) const { return interval > 0 && state().step % interval == 0; }
    TrainState& state() const { return *allocated_->state; }

    const Topology& topology_;
    const Config& config_;
    const TokenFile& tokens_;
    StopRequests& requests_;
    TestFault fault_;
    StepRange traced_;
    TokenLoader loader_;
    Record record_;
    std::optional<Watchdog> watchdog_;
    std::optional<Checkpoints> checkpoints_;
    std::unique_ptr<AllocatedState> allocated_;
    Traffic traffic_;
    RunScale scale_;
    std::int64_t first_sample_ = 0;
    double start_up_bytes_ = 0;
};

}  // namespace switchyard

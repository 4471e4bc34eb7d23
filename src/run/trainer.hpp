// Trainer: a run from its configuration to its exit code: config -> topology -> tokens -> state -> restore or
// initialise -> steps -> evaluations, saves, requests to stop -> finish.
#pragma once

#include <memory>
#include <optional>

#include "io/run/run_directory.hpp"
#include "io/run/run_log.hpp"
#include "io/tokens/token_loader.hpp"
#include "run/checkpoints.hpp"
#include "run/environment.hpp"
#include "run/progress.hpp"
#include "run/report.hpp"
#include "run/signal_lead.hpp"
#include "run/stop_requests.hpp"
#include "run/test_fault.hpp"
#include "run/watchdog.hpp"

namespace switchyard {

inline constexpr int exit_done = 0, exit_requeue = 75;

/// Starts or resumes the run directory of `config` (as parsed). Collective over the world. Returns the exit
/// code: exit_requeue after SIGUSR1 or run.wall_limit, else exit_done. Throws on errors; status.json then
/// says `failed`.
int train(const Comm& world, const Config& config, const StartInfo&);

class Trainer {
  public:
    /// config: complete and validated.
    Trainer(const Topology&, const Config&, const TokenFile&, const StartInfo&, StopRequests&);
    int run();

  private:
    int run_guarded();
    void open_directory();
    void measure_peak();
    void build_state();
    void restore_or_initialise();
    void announce();
    Stop train_steps();
    StepFigures one_step();
    double evaluate();
    void save();
    double expected_save_s() const;
    void say_signal_lead();
    void record(const StepFigures&);
    int finish(Stop);

    std::int64_t last_step() const;
    bool at_interval(std::int64_t interval) const { return interval > 0 && state().step % interval == 0; }
    TrainState& state() const { return *allocated_->state; }
    bool speaks() const { return topology_.world.rank() == 0; }
    void log_event(const char* event, nlohmann::ordered_json details = nlohmann::ordered_json::object());
    void write_status(const char* outcome, const std::string& reason);
    void write_status(const RunStatus&);

    const Topology& topology_;
    const Config& config_;
    const TokenFile& tokens_;
    const StartInfo& start_;
    StopRequests& requests_;
    TestFault fault_;
    TokenLoader loader_;

    std::optional<RunDirectory> directory_;  // rank 0
    std::optional<RunLog> log_;              // rank 0
    std::unique_ptr<Watchdog> watchdog_;
    std::optional<Checkpoints> checkpoints_;
    std::unique_ptr<AllocatedState> allocated_;
    Traffic traffic_;
    std::int64_t first_sample_ = 0;
    std::int64_t known_step_ = 0;  // what status.json says until the state is restored
    bool was_finished_ = false;    // before this start, until it is sure
    RunStatus finished_;           // rank 0: what status.json said then

    RunScale scale_;
    RunTotals totals_;
    double start_up_bytes_ = 0;
    double mean_step_s_ = 0, longest_step_s_ = 0;  // evaluations included in the longest
    LongestTimes logged_;                          // rank 0: of the whole run, earlier starts included
    int lead_verdict_ = -1;                        // as last said
    std::optional<double> last_val_loss_;
    Progress progress_;
};

}  // namespace switchyard

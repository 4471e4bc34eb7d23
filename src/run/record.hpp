// Record: what a run leaves behind and shows: directory, log, status, lines for people. Every rank has one
// and tells it what happens; it works on rank 0 alone, unless a function says otherwise.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/run/run_directory.hpp"
#include "io/run/run_log.hpp"
#include "run/initial_state.hpp"
#include "run/progress.hpp"
#include "run/report.hpp"
#include "run/signal_lead.hpp"
#include "run/stop_requests.hpp"
#include "saving/checkpoints.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {

class Record {
  public:
    /// config: complete; outlives the record.
    Record(const Comm& world, const Config&);

    /// Takes the run directory. Collective; throws UserError on all ranks and leaves its status alone then.
    void open();
    /// Before a save: throws UserError on all ranks when another run has taken the directory. Collective.
    void check_lock() const;

    /// Called now and then while a checkpoint is read.
    void reading(std::uint64_t done, std::uint64_t all);
    void resumed(const std::string& checkpoint, const std::vector<AllowedChange>& changes, std::int64_t step);
    void started(const InitialState&);
    /// From here on nothing can refuse the start any more: what the run is, where, and what it costs.
    void announce(const nlohmann::ordered_json& environment, const RunScale&);
    /// A line for people that stays.
    void say(const std::string& line);
    void step(const StepFigures&, double remaining_s);
    /// A save goes on in the background.
    void saving();
    /// A save ended, with a file or with a problem.
    void saved(const SaveReport&);
    void stopping(Stop);
    void finished(const char* outcome, const std::string& reason, const MeasuredMemory&);
    /// On any rank, also when it fails alone: writes status.json, unless this start was refused and the run
    /// had finished before.
    void failed(const std::string& problem);
    /// failed() from a watchdog's thread: what another rank said first stays.
    void last_words(const std::string& problem) const;

    /// What a further step and the saves after it will take at most; 0 on other ranks.
    double needed_s(bool save_under_way) const;

  private:
    double expected_save_s() const;
    void say_signal_lead();
    void log_event(const char* event, nlohmann::ordered_json details = nlohmann::ordered_json::object());
    void write_status(const RunStatus&) const;

    Comm world_;
    const Config& config_;
    std::int64_t step_ = 0;            // on every rank
    bool opened_ = false;              // on every rank
    bool was_finished_ = false;        // on every rank: by an earlier start; false once announced
    std::optional<RunStatus> before_;  // what status.json said before this start
    std::optional<RunDirectory> directory_;
    std::optional<RunLog> log_;
    Progress progress_;

    Plan plan_;
    RunScale scale_;
    RunTotals totals_;
    double mean_step_s_ = 0, longest_step_s_ = 0;  // evaluations included in the longest
    LongestTimes logged_;                          // in the whole run, earlier starts included
    int lead_verdict_ = -1;                        // the one last shown
    std::optional<double> last_val_loss_;
};

}  // namespace switchyard

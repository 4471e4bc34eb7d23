// What a person sees of a run: one live line on a terminal, a line every log_interval in a batch log. Rank 0
// only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

/// One step's figures for the eye.
struct ProgressLine {
    std::int64_t step = 0, steps = 0;
    double loss = 0, lr = 0, grad_norm = 0, tokens_per_s = 0, mfu = 0;
    double eta_s = 0;        // to the end of the run
    double remaining_s = 0;  // of run.wall_limit; infinite: none
    double val_loss = 0;
    bool evaluated = false;
};

class Progress {
  public:
    explicit Progress(std::int64_t log_interval);
    ~Progress();
    void step(const ProgressLine&);
    /// Something long that has no steps: `done` of `all` bytes. At `now_s` (seconds_now()); a batch log gets
    /// no line before ten seconds are over, and then one every ten seconds.
    void amount(const std::string& what, std::uint64_t done, std::uint64_t all, double now_s);
    /// A line that stays.
    void line(const std::string& text);
    /// Leaves the live line as it is, so that what follows, an error for instance, begins a new one.
    void end_line();

  private:
    void clear();
    void draw(const std::string& text);

    std::int64_t log_interval_;
    bool live_, shown_ = false;
    double last_s_ = 0;
    std::optional<double> last_amount_s_;
};

/// Columns of the terminal at which standard output ends, 0: it ends elsewhere. Open MPI gives every rank a
/// pseudo-terminal, whatever mpirun's own output is: there the launcher is asked.
int terminal_columns();

}  // namespace switchyard

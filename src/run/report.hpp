// What a run tells about itself: lines at the start, a record for each step, and a table of predicted and
// measured figures at the end.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/timer.hpp"
#include "plan/plan.hpp"
#include "train/train_step.hpp"

namespace switchyard {

/// One step in log.jsonl.
struct StepFigures {
    std::int64_t step = 0;  // updates done
    StepResult result;
    double step_s = 0, eval_s = 0;
    PhaseTimer phases;
    Traffic sent;  // by rank 0 in this step
    std::optional<double> val_loss;
};

/// Constants of a run that rates refer to.
struct RunScale {
    double tokens_per_step = 0;
    Flops flops_per_token;
    double peak_flops = 0;  // matrix products, all ranks together
    double rate(double step_s) const { return tokens_per_step / step_s; }
    double mfu(double flops_per_token, double step_s) const {
        return flops_per_token * rate(step_s) / peak_flops;
    }
};

nlohmann::ordered_json step_record(const StepFigures&, const RunScale&);

/// Sums over the steps of this process.
struct RunTotals {
    std::int64_t first_step = 0, steps = 0;
    double seconds = 0;
    std::array<double, num_phases> phase_s{};
    std::vector<Traffic> sent;  // per step, of the first max_planned_steps
    void add(const StepFigures&);
};
inline constexpr std::int64_t max_planned_steps = 100;

/// Model, layout, checkpoint size, operations, notes.
std::vector<std::string> start_lines(const Config&, const Plan&, int threads, double peak_flops);

/// Memory of the rank that needs most, by class.
std::string memory_line(const Plan&);

/// Predicted beside measured. `plan`: for this rank, with the bytes of the first max_planned_steps steps.
struct MeasuredMemory {
    MemoryUse arena;
    double process_bytes = 0;  // peak less start-up; 0: not known here
    double pinned_bytes = 0;   // of host memory
};
std::vector<std::string> finish_lines(const Plan&, const RunScale&, const RunTotals&, const MeasuredMemory&);

/// {"frozen": 1.0, ...} without zeros unless asked for.
nlohmann::ordered_json json_of(const Traffic&);
nlohmann::ordered_json json_of(const MemoryUse&);

}  // namespace switchyard

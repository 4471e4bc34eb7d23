// A step, and the evaluation that shares its data path.
#include "train/train_step.hpp"

#include <cmath>

#include "core/call_counts.hpp"
#include "core/error.hpp"
#include "core/last_calls.hpp"
#include "core/trace.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/reductions.hpp"
#include "kernels/transfer.hpp"
#include "optim/schedule.hpp"
#include "train/finite.hpp"

namespace switchyard {
namespace {

void upload(const Batch& batch, const MicroBatch& to) {
    kernels::upload(batch.tokens.data(), to.tokens);
    kernels::upload(batch.targets.data(), to.targets);
    if (!to.first_key.empty()) kernels::upload(batch.first_key.data(), to.first_key);
}

/// The phases of a step, one after the other; the timer is told how long collectives waited in them.
class Phases {
  public:
    Phases(PhaseTimer& timer, Traffic& traffic, Phase first) : timer_(timer), traffic_(traffic), now_(first) {
        traffic_.waits = &timer_.waits();
        enter();
    }
    ~Phases() {
        backend::end_range();
        note_phase(nullptr);
        traffic_.waits = nullptr;
    }
    Phases(const Phases&) = delete;
    Phases& operator=(const Phases&) = delete;

    void begin(Phase next) {
        end();
        backend::end_range();
        now_ = next;
        enter();
    }
    void end() { timer_.lap(now_); }

  private:
    void enter() const {
        note_phase(name_of(now_));
        backend::begin_range(name_of(now_));
    }

    PhaseTimer& timer_;
    Traffic& traffic_;
    Phase now_;
};

double host_value(Tensor scalar) {
    double value = 0;
    kernels::download(scalar, &value);
    return value;
}

/// Loss and norm are the same on all ranks, and so is the verdict. AdamW saw the same norm and changed
/// nothing.
void require_finite(TrainState& s, double loss, double norm) {
    if (std::isfinite(loss) && std::isfinite(norm)) return;
    const std::string gradient = s.optimizer.first_bad_gradient(), weight = first_bad_weight(s);
    fail<NotFinite>("step {}: loss {} or gradient norm {} is not finite{}", s.step + 1,
                    without_nan_sign(loss), without_nan_sign(norm),
                    !weight.empty()    ? ", first bad weight: " + weight
                    : gradient.empty() ? ""
                                       : ", first bad gradient: " + gradient);
}

}  // namespace

StepResult train_step(TrainState& state, const TokenLoader& loader, std::int64_t first_sample,
                      PhaseTimer& timer) {
    const auto source = [&](std::int64_t first, std::int64_t count, Batch& batch) {
        loader.training_batch(first_sample + first, count, batch);
    };
    return train_step(state, source, timer);
}

StepResult train_step(TrainState& s, const BatchSource& source, PhaseTimer& timer) {
    const CountedStep counted;
    const Config& config = s.context.config;
    const Comm& dp = s.context.topology.dp;
    const std::int64_t per_rank = config.data.global_batch / dp.size();
    const std::int64_t first = s.step * config.data.global_batch + dp.rank() * per_rank;
    const double scale = 1.0 / static_cast<double>(config.data.global_batch * config.data.seq_len);
    Phases phases(timer, s.context.traffic, Phase::optimizer);
    Batch batch;
    StepResult result;

    const Tensor loss = s.optimizer.scalars().slots(s.loss_slot);
    kernels::zero(loss);
    s.optimizer.zero_gradients();
    s.method->begin_step(s.step);
    for (std::int64_t done = 0; done < per_rank; done += config.data.micro_batch) {
        phases.begin(Phase::data);
        read_once_per_tp_group(s.context, source, first + done, batch);
        upload(batch, s.model.batch());
        phases.begin(Phase::forward);
        s.method->begin_micro_batch(s.model);
        s.model.forward(s.method->task_weight() * scale);
        kernels::add(s.model.loss(), loss);
        phases.begin(Phase::backward);
        s.model.backward();
    }
    phases.begin(Phase::optimizer);
    s.method->reduce_gradients(s.optimizer);
    s.method->squared_gradient_norm(s.optimizer);
    s.loss_of_ranks.combine(loss, kernels::Combine::sum, s.context.traffic);
    s.optimizer.decide_clip(loss);

    const double factor =
        lr_schedule(config.optim, s.step, config.run.steps) * s.method->lr_multiplier(s.step);
    result.lr = factor * config.optim.lr;
    s.method->before_update(s.optimizer, s.step);
    s.method->update(s.optimizer, factor);
    s.optimizer.gather_values();
    phases.begin(Phase::switching);
    result.method = s.method->after_gather(s.optimizer, s.step);

    const std::span<const double> scalars = s.optimizer.scalars().read();  // the host waits nowhere else
    result.loss = scale * scalars[s.loss_slot];
    result.grad_norm = s.optimizer.gradient_norm(scalars);
    s.method->diagnose(scalars);
    require_finite(s, result.loss, result.grad_norm);
    s.method->end_step(scalars, result.method);
    ++s.step;
    s.weights_changed();
    phases.end();
    return result;
}

double validation_loss(const ModelContext& context, Transformer& model, const TokenLoader& loader,
                       const std::function<void()>& progress) {
    const Comm& dp = context.topology.dp;
    const std::int64_t count = context.micro_batch;
    const auto source = [&](std::int64_t first, std::int64_t number, Batch& batch) {
        loader.validation_batch(first, number, batch);  // past the end: targets are ignored
    };
    double sum = 0;
    Batch batch;
    for (std::int64_t first = 0; first < loader.num_validation_sequences(); first += dp.size() * count) {
        read_once_per_tp_group(context, source, first + dp.rank() * count, batch);
        upload(batch, model.batch());
        model.evaluate();
        sum += host_value(model.loss());
        progress();
    }
    return without_nan_sign(all_reduce_sum(dp, sum) / static_cast<double>(loader.num_validation_targets()));
}

}  // namespace switchyard

// SoRA (Ding et al. 2023, arXiv 2311.11696): y = x (W + alpha/r B diag(gate) A)', W frozen. The objective has
// the penalty `sparsity` times the mean of |gate| (section 3.2 there); after AdamW the gates take the proximal
// step of an L1 penalty, so that slots close; its threshold may rise in stages (algorithm 1). Shapes stay as
// they are during a run.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"
#include "kernels/shrink.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/gated_adapter.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

constexpr double gate_eps = 1e-6;  // of AdamW, as published

/// The threshold of a step: the same in the `interval` steps of a stage, the last stage has no end.
class ThresholdSchedule {
  public:
    explicit ThresholdSchedule(const MethodConfig& method)
        : first_(option_real(method, "threshold")),
          last_(option_real(method, "threshold_last")),
          stages_(option_integer(method, "threshold_stages")),
          interval_(option_integer(method, "threshold_interval")),
          geometric_(option_text(method, "threshold_spacing") == "geometric") {}

    double at(std::int64_t step) const {
        if (stages_ == 1) return first_;
        const std::int64_t stage = std::min(step / interval_, stages_ - 1);
        const double part = static_cast<double>(stage) / static_cast<double>(stages_ - 1);
        return geometric_ ? first_ * std::pow(last_ / first_, part) : first_ + part * (last_ - first_);
    }
    double sum(std::int64_t steps) const {
        double sum = 0;
        for (std::int64_t step = 0; step < steps; ++step) sum += at(step);
        return sum;
    }

  private:
    double first_, last_;
    std::int64_t stages_, interval_;
    bool geometric_;
};

class Sora : public LowRankMethod {
  public:
    explicit Sora(const Config& config)
        : sparsity_(option_real(config.method, "sparsity")),
          threshold_(config.method),
          prox_(option_text(config.method, "prox") == "soft" ? kernels::Prox::soft
                                                             : kernels::Prox::published),
          lr_(config.optim.lr) {}

    void allocate(const ModelContext&, Transformer&, Optimizer& optimizer) override {
        penalty_slot_ = optimizer.scalars().take();
        std::int64_t gates = 0;
        for (const Adapted& x : adapted_) gates += x.adapter->low_rank();
        share_ = sparsity_ / static_cast<double>(gates);
    }
    void initialise(const ModelContext&) override;
    void begin_step(std::int64_t step) override {
        LowRankMethod::begin_step(step);
        step_ = step;
    }
    void reduce_gradients(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    std::vector<std::string> notes(const Config&) const override;
    void end_step(std::span<const double> scalars, MethodReport& report) override {
        report.objective.emplace_back("penalty", scalars[penalty_slot_]);
    }

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<GatedAdapter>(context, linear, low_rank(context), scale(context));
    }

  private:
    static GatedAdapter& of(const Adapted& x) { return static_cast<GatedAdapter&>(*x.adapter); }

    double sparsity_;
    ThresholdSchedule threshold_;
    kernels::Prox prox_;
    double lr_;
    std::int64_t step_ = 0;
    double share_ = 0;  // sparsity over the number of gates
    int penalty_slot_ = 0;
};

void Sora::initialise(const ModelContext& context) {
    initialise_plain(context);
    for (const Adapted& x : adapted_) {
        const Parameter& gate = of(x).gate();
        const std::int64_t slots = gate.value.size();
        kernels::fill_normal(gate.value.reshape({slots, 1}), {1, 0, 0, slots, 1},
                             stream_key(context.config.run.seed, gate.shard.name), 1.0);
    }
}

void Sora::reduce_gradients(Optimizer& optimizer) {
    const Tensor penalty = optimizer.scalars().slots(penalty_slot_);
    kernels::zero(penalty);
    for (const Adapted& x : adapted_) {
        kernels::add_l1_norm(of(x).gate().value, share_, penalty);
        of(x).close_gradients();
    }
    optimizer.reduce_gradients();
    // Owners have the whole gradient of their gates; what others add to theirs is not used.
    for (const Adapted& x : adapted_) kernels::add_signs(of(x).gate().value, share_, of(x).gate().gradient);
}

void Sora::update(Optimizer& optimizer, double lr_factor) {
    std::vector<OwnedParameter*> gates;
    optimizer.update(lr_factor, [&](OwnedParameter& owned, kernels::AdamWSettings& settings) {
        if (!owned.parameter().shard.name.ends_with(".lora_gate")) return true;
        settings.eps = gate_eps;
        settings.weight_decay = 0;
        gates.push_back(&owned);
        return true;
    });
    const double threshold = threshold_.at(step_),
                 xi = prox_ == kernels::Prox::soft ? lr_factor * lr_ * threshold : threshold;
    for (OwnedParameter* owned : gates) {
        if (owned->num_rows() == 0) continue;
        kernels::shrink(owned->masters().rows(0, owned->num_rows()), xi, prox_, optimizer.clip());
        owned->values_from_masters();
    }
}

std::vector<std::string> Sora::notes(const Config& config) const {
    const double sum = threshold_.sum(config.run.steps),
                 most = prox_ == kernels::Prox::soft ? lr_ * sum : sum;
    if (most >= 1) return {};
    return {fmt::format(
        "gates begin at about 1 and shrink by at most {:.3g} in {} steps: few slots will close; for more, "
        "raise method.threshold",
        most, config.run.steps)};
}

void resolve(Config& config) {
    resolve_low_rank(config);
    std::string& threshold = config.method.options.at("threshold");
    if (threshold == "auto") threshold = option_text(config.method, "prox") == "soft" ? "0.375" : "0.0003";
    std::string& last = config.method.options.at("threshold_last");
    if (last == "auto") last = threshold;
}

void check(const Config& config) {
    check_low_rank(config);
    if (option_integer(config.method, "threshold_stages") == 1) return;
    require(option_integer(config.method, "threshold_interval") > 0,
            "method.threshold_stages = {} needs method.threshold_interval, the number of steps of a stage; "
            "set it, for example to {} (run.steps over the number of stages)",
            option_text(config.method, "threshold_stages"),
            std::max<std::int64_t>(1, config.run.steps / option_integer(config.method, "threshold_stages")));
    require(option_text(config.method, "threshold_spacing") == "linear" ||
                (option_real(config.method, "threshold") > 0 && option_real(config.method, "threshold_last") > 0),
            "method.threshold_spacing = geometric with a threshold of 0 (there is no factor from it to another "
            "threshold); give method.threshold and method.threshold_last above 0, or use linear");
}

}  // namespace

MethodEntry sora() {
    const MethodOption sparsity{.key = "sparsity",
                                .type = MethodOption::Type::real,
                                .default_value = "0.001",
                                .help = "weight of the mean of |gate| in the objective",
                                .minimum = 0,
                                .maximum = 1e9};
    const MethodOption threshold{.key = "threshold",
                                 .type = MethodOption::Type::real,
                                 .default_value = "auto",
                                 .help = "soft: gates shrink by this times the learning rate in every step, "
                                         "auto: 0.375; published: by this, auto: 0.0003",
                                 .minimum = 0,
                                 .maximum = 1e9};
    const MethodOption last{.key = "threshold_last",
                            .type = MethodOption::Type::real,
                            .default_value = "auto",
                            .help = "threshold of the last stage, auto: threshold",
                            .minimum = 0,
                            .maximum = 1e9};
    const MethodOption stages{.key = "threshold_stages",
                              .type = MethodOption::Type::integer,
                              .default_value = "1",
                              .help = "number of thresholds that follow each other",
                              .minimum = 1,
                              .maximum = 1000000};
    const MethodOption interval{.key = "threshold_interval",
                                .type = MethodOption::Type::integer,
                                .default_value = "0",
                                .help = "steps of a stage; of no effect with one stage",
                                .minimum = 0,
                                .maximum = 1e15};
    const MethodOption spacing{.key = "threshold_spacing",
                               .type = MethodOption::Type::text,
                               .default_value = "linear",
                               .help = "linear: equal differences between stages; geometric: equal factors",
                               .choices = {"linear", "geometric"}};
    const MethodOption prox{.key = "prox",
                            .type = MethodOption::Type::text,
                            .default_value = "soft",
                            .help = "soft: the paper's proximal step; published: that of its code",
                            .choices = {"soft", "published"}};
    return {.options = {.name = "sora",
                        .help = "low-rank factors with a gate for each slot, which a penalty closes",
                        .options = {rank_option(), alpha_option("16"), sparsity, threshold, last, stages, interval, spacing, prox},
                        .lr = 8e-4},
            .create = [](const Config& config) -> std::unique_ptr<Method> {
                return std::make_unique<Sora>(config);
            },
            .resolve = resolve,
            .check = check,
            .guide = {.equation = "y = x (W + alpha/rank B diag(gate) A)', gates shrink to zero",
                      .source = "Ding et al. 2023, arXiv 2311.11696",
                      .use = "finding how many slots each matrix of an adapted model needs",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

// PC-LoRA (Hwang et al. 2024, arXiv 2406.09117): y = x (lambda W + alpha/r B A)' + C, W frozen; lambda falls
// from 1 to 0 in the first `decay_steps` steps, after which W is of no use. The objective is task_weight
// times the task's loss plus 1 - task_weight times the mean over all adapted linears of the mean squared
// distance of their outputs from those of a teacher on the same tokens: the model as it was at step 0.
// Gradients go through lambda W; C is not scaled.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/elementwise.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/pclora/distilled_adapter.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class BaseFactor {
  public:
    explicit BaseFactor(const MethodConfig& method)
        : steps_(option_integer(method, "decay_steps")), decay_(option_text(method, "decay")) {}

    /// lambda of a step; 0 from step decay_steps on.
    double at(std::int64_t step) const {
        if (step >= steps_) return 0;
        const double part = static_cast<double>(step) / static_cast<double>(steps_);
        if (decay_ == "identity") return 1;
        if (decay_ == "linear") return 1 - part;
        const double angle = std::numbers::pi / 2 * part;
        return decay_ == "sine" ? 1 - std::sin(angle) : std::cos(angle);
    }
    std::int64_t steps() const { return steps_; }

  private:
    std::int64_t steps_;
    std::string decay_;
};

class PcLora : public LowRankMethod {
  public:
    explicit PcLora(const Config& config)
        : base_(config.method),
          task_weight_(option_real(config.method, "task_weight")),
          bias_(option_boolean(config.method, "bias")) {}

    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext& context) override {
        initialise_plain(context);
        for (const Adapted& x : adapted_)
            if (bias_) kernels::zero(of(x).bias_parameter().value);
        new_teacher_ = true;
    }
    void weights_changed(const ModelContext&, std::int64_t step) override;
    double task_weight() const override { return task_weight_; }
    void begin_step(std::int64_t step) override;
    void begin_micro_batch(Transformer&) override {
        for (const Adapted& x : adapted_) of(x).begin_micro_batch();
    }
    void reduce_gradients(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    void end_step(std::span<const double> scalars, MethodReport& report) override {
        if (teacher_) report.objective.emplace_back("distillation", scalars[loss_slot_]);
    }
    void visit_state(StateIo&, Optimizer&) override;
    std::optional<Refusal> refusal(Use) const override;
    std::vector<std::string> notes(const Config&) const override;

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        const std::int64_t steps = std::max<std::int64_t>(1, context.config.run.steps);
        const double share = static_cast<double>(std::min(base_.steps(), steps)) / static_cast<double>(steps);
        return std::make_unique<DistilledAdapter>(context, linear, low_rank(context), scale(context), bias_,
                                                  share);
    }

  private:
    static DistilledAdapter& of(const Adapted& x) { return static_cast<DistilledAdapter&>(*x.adapter); }
    void allocate_losses(const ModelContext&);

    BaseFactor base_;
    double task_weight_;
    bool bias_;
    Shadow* teacher_ = nullptr;  // none in evaluations, or if it has no weight
    bool new_teacher_ = false;   // it is to be taken from the model
    Tensor loss_;                // (1) f64 of the step's scalars, from loss_slot_ on
    int loss_slot_ = 0;
    RankValues loss_of_ranks_;
    Traffic* traffic_ = nullptr;
};

void PcLora::allocate(const ModelContext& context, Transformer& model, Optimizer& optimizer) {
    if (task_weight_ == 1) return;
    teacher_ = &model.add_shadow(context);
    loss_slot_ = optimizer.scalars().take();
    loss_ = optimizer.scalars().slots(loss_slot_);
    loss_of_ranks_ = RankValues(context.arena, context.topology.world, 1);
    traffic_ = &context.traffic;
    allocate_losses(context);
}

/// Blocks whose outputs are computed again in backward share the memory of differences.
void PcLora::allocate_losses(const ModelContext& context) {
    const std::size_t of_block = adapted_.size() / static_cast<std::size_t>(context.config.model.num_layers);
    const double tokens = static_cast<double>(context.config.data.global_batch * context.seq_len);
    std::vector<Tensor> differences;
    for (std::size_t i = 0; i < adapted_.size(); ++i) {
        const Linear& linear = *adapted_[i].linear;
        const bool again = i >= of_block && linear.recomputed();
        differences.push_back(again ? differences[i - of_block]
                                    : context.arena.take(MemoryClass::activations, context.dtype,
                                                         {context.tokens(), linear.out().padded}));
        const double values =
            static_cast<double>(adapted_.size()) * tokens * static_cast<double>(linear.out().size);
        // Every tp rank has the whole output of a row-parallel linear.
        of(adapted_[i])
            .set_loss({.differences = differences.back(),
                       .weight = (1 - task_weight_) / values,
                       .counted = linear.split() == Split::row ? 1.0 / context.tp_size() : 1.0});
    }
}

void PcLora::weights_changed(const ModelContext&, std::int64_t step) {
    for (const Adapted& x : adapted_) of(x).set_base(base_.at(step));
    if (teacher_ && new_teacher_) teacher_->take();
    new_teacher_ = false;
}

void PcLora::begin_step(std::int64_t step) {
    LowRankMethod::begin_step(step);
    if (!teacher_) return;
    kernels::zero(loss_);
    for (const Adapted& x : adapted_) of(x).set_sum(loss_);
}

void PcLora::reduce_gradients(Optimizer& optimizer) {
    if (teacher_) loss_of_ranks_.combine(loss_, kernels::Combine::sum, *traffic_);
    LowRankMethod::reduce_gradients(optimizer);
}

void PcLora::update(Optimizer& optimizer, double lr_factor) {
    optimizer.update(lr_factor, [](OwnedParameter& owned, kernels::AdamWSettings& settings) {
        if (owned.parameter().shard.name.ends_with(".lora_bias")) settings.weight_decay = 0;
        return true;
    });
}

void PcLora::visit_state(StateIo& io, Optimizer& optimizer) {
    LowRankMethod::visit_state(io, optimizer);
    if (teacher_) teacher_->visit(io, "/method/teacher/");
    if (io.loading()) new_teacher_ = false;
}

std::optional<Refusal> PcLora::refusal(Use use) const {
    if (use == Use::take_state)
        return Refusal{
            "the factor of its frozen weights follows the step, and the steps of a new run begin at 0, so "
            "that the model would change at once",
            "resume the run itself, or take the weights alone where method.bias = false"};
    if (use != Use::start_run || !bias_) return std::nullopt;
    return Refusal{"its linears have a trained bias, for which the model of a run has no place",
                   "train with method.bias = false for weights that another run can start from; `export` "
                   "writes biases"};
}

std::vector<std::string> PcLora::notes(const Config& config) const {
    std::vector<std::string> notes;
    if (task_weight_ < 1 && config.run.init_from.empty())
        notes.emplace_back("the teacher is the model at step 0, which without run.init_from is random");
    const std::int64_t left = config.run.steps - base_.steps();
    notes.push_back(
        left > 0 ? fmt::format("the frozen weights count until step {}, and not at all in the last "
                               "{} steps",
                               base_.steps(), left)
                 : "the frozen weights count in all steps (method.decay_steps is not below run.steps): "
                   "the model is not compressed");
    return notes;
}

void resolve(Config& config) {
    resolve_low_rank(config);
    std::string& steps = config.method.options.at("decay_steps");
    if (steps == "auto") steps = std::to_string(std::max<std::int64_t>(1, config.run.steps * 4 / 5));
}

}  // namespace

MethodEntry pclora() {
    const MethodOption steps{
        .key = "decay_steps",
        .type = MethodOption::Type::integer,
        .default_value = "auto",
        .unit = "steps",
        .help = "steps until the frozen weights no longer count; auto: 80 % of run.steps",
        .minimum = 1,
        .maximum = 1e9};
    const MethodOption decay{.key = "decay",
                             .type = MethodOption::Type::text,
                             .default_value = "linear",
                             .help = "how their factor falls from 1 to 0; identity: at once, at the end",
                             .choices = {"linear", "sine", "cosine", "identity"}};
    const MethodOption weight{.key = "task_weight",
                              .type = MethodOption::Type::real,
                              .default_value = "0.2",
                              .help = "weight of the task's loss; the rest is the distance from the teacher",
                              .minimum = 0,
                              .maximum = 1};
    const MethodOption bias{.key = "bias",
                            .type = MethodOption::Type::boolean,
                            .default_value = "true",
                            .help = "linears have a trained bias, as published"};
    return {.options = {.name = "pclora",
                        .help = "low-rank factors take the place of frozen weights, beside a frozen teacher",
                        .options = {rank_option(), alpha_option("32"), steps, decay, weight, bias},
                        .lr = 1e-3},
            .create = [](const Config& config) -> std::unique_ptr<Method> {
                return std::make_unique<PcLora>(config);
            },
            .resolve = resolve,
            .check = check_low_rank,
            .guide = {.equation = "y = x (lambda W + alpha/rank B A)' + C, lambda falls to 0",
                      .source = "Hwang et al. 2024, arXiv 2406.09117",
                      .use = "compressing a trained model (run.init_from) to low-rank factors",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

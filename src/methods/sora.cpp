// SoRA (Ding et al. 2023, arXiv 2311.11696): y = x (W + alpha/r B diag(gate) A)', W frozen. The objective
// has the penalty `sparsity` times the mean of |gate| (section 3.2 there); after AdamW the gates take
// the proximal
// step of an L1 penalty, so that slots close (algorithm 1). Shapes stay as they are during a run.
#include <fmt/format.h>

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

class Sora : public LowRankMethod {
  public:
    explicit Sora(const Config& config)
        : sparsity_(option_real(config.method, "sparsity")),
          threshold_(option_real(config.method, "threshold")),
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

    double sparsity_, threshold_;
    kernels::Prox prox_;
    double lr_;
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
    const double xi = prox_ == kernels::Prox::soft ? lr_factor * lr_ * threshold_ : threshold_;
    for (OwnedParameter* owned : gates) {
        if (owned->num_rows() == 0) continue;
        kernels::shrink(owned->masters().rows(0, owned->num_rows()), xi, prox_, optimizer.clip());
        owned->values_from_masters();
    }
}

std::vector<std::string> Sora::notes(const Config& config) const {
    const double rate = prox_ == kernels::Prox::soft ? lr_ * threshold_ : threshold_;
    const double most = rate * static_cast<double>(config.run.steps);
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
    const MethodOption prox{.key = "prox",
                            .type = MethodOption::Type::text,
                            .default_value = "soft",
                            .help = "soft: the paper's proximal step; published: that of its code",
                            .choices = {"soft", "published"}};
    return {.options = {.name = "sora",
                        .help = "low-rank factors with a gate for each slot, which a penalty closes",
                        .options = {rank_option(), alpha_option("16"), sparsity, threshold, prox},
                        .lr = 8e-4},
            .create = [](const Config& config) -> std::unique_ptr<Method> {
                return std::make_unique<Sora>(config);
            },
            .resolve = resolve,
            .check = check_low_rank,
            .guide = {.equation = "y = x (W + alpha/rank B diag(gate) A)', gates shrink to zero",
                      .source = "Ding et al. 2023, arXiv 2311.11696",
                      .use = "finding how many slots each matrix of an adapted model needs",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

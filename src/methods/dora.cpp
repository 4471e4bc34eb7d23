// DoRA (Liu et al. 2024, arXiv 2402.09353): y = x (g o (W + alpha/r B A))' with g_i = magnitude_i / |row i of
// W + alpha/r B A|; W frozen, A, B and magnitude trained. The gradient of the norm is left out (section 4.3
// there; as in PEFT) or, with norm_gradient = exact, is part of the gradients of A and B.
#include <fmt/format.h>

#include "kernels/elementwise.hpp"
#include "kernels/scaling.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/magnitude_adapter.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class Dora : public LowRankMethod {
  public:
    explicit Dora(const Config& config) : exact_(option_text(config.method, "norm_gradient") == "exact") {}

    void initialise(const ModelContext&) override;
    void weights_changed(const ModelContext&, std::int64_t step) override;
    void visit_function(StateIo& io) override {
        if (io.loading()) norms_.base_changed();
    }
    void reduce_gradients(Optimizer&) override;
    void update(Optimizer&, double lr_factor) override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;
    std::vector<std::string> notes(const Config&) const override;

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<MagnitudeAdapter>(context, linear, low_rank(context), scale(context), exact_);
    }
    void adapted(const ModelContext&) override;

  private:
    static MagnitudeAdapter& of(const Adapted& x) { return static_cast<MagnitudeAdapter&>(*x.adapter); }

    bool exact_;
    AllRowNorms norms_;
};

void Dora::adapted(const ModelContext& context) {
    const Adapted& x = adapted_.back();
    norms_.add(context, *x.linear, *x.adapter, of(x).norms());
}

void Dora::initialise(const ModelContext& context) {
    initialise_plain(context);
    norms_.base_changed();
    norms_.measure();
    for (const Adapted& x : adapted_) of(x).magnitude_from_norms();
}

void Dora::weights_changed(const ModelContext&, std::int64_t) {
    norms_.measure();
    for (const Adapted& x : adapted_) of(x).form_row_scale();
}

void Dora::reduce_gradients(Optimizer& optimizer) {
    for (const Adapted& x : adapted_) of(x).close_gradients();
    if (exact_) {
        std::vector<Tensor> sums;
        for (const Adapted& x : adapted_) sums.push_back(of(x).sums());
        norms_.sums().run(sums, TrafficGroup::gradients);
        for (const Adapted& x : adapted_) of(x).add_norm_gradient(*x.linear);
    }
    optimizer.reduce_gradients();
}

void Dora::update(Optimizer& optimizer, double lr_factor) {
    // A decaying magnitude would shrink the function, which the decay of A and B does not do.
    const auto adjust = [](OwnedParameter& owned, kernels::AdamWSettings& settings) {
        if (owned.parameter().shard.name.ends_with(".lora_magnitude")) settings.weight_decay = 0;
        return true;
    };
    optimizer.update(lr_factor, adjust);
}

std::vector<Traffic> Dora::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    Traffic step = optimizer.plan_traffic();
    norms_.plan(step);
    if (exact_) norms_.sums().plan(step, TrafficGroup::gradients);
    return std::vector<Traffic>(static_cast<std::size_t>(steps), step);
}

std::vector<std::string> Dora::notes(const Config&) const {
    double product = 0;
    for (const Adapted& x : adapted_)
        product += 2 * static_cast<double>(x.linear->out().size) * static_cast<double>(x.linear->in().size);
    return {fmt::format(
        "backward computes the output of every adapted linear again, for the gradient of its magnitude: "
        "{:.3g} MFLOP a token more than for factors alone",
        product / 1e6)};
}

}  // namespace

MethodEntry dora() {
    const MethodOption norm_gradient{.key = "norm_gradient",
                                     .type = MethodOption::Type::text,
                                     .default_value = "detached",
                                     .help = "detached: the norm is a constant of the step; exact: it is not",
                                     .choices = {"detached", "exact"}};
    return {.options = {.name = "dora",
                        .help = "low-rank factors change the direction of rows, a vector their length",
                        .options = {rank_option(), alpha_option("32"), norm_gradient},
                        .lr = 1e-3},
            .create = [](const Config& config) -> std::unique_ptr<Method> {
                return std::make_unique<Dora>(config);
            },
            .resolve = resolve_low_rank,
            .check = check_low_rank,
            .guide = {.equation = "y = x (g o (W + alpha/rank B A))', g_i = magnitude_i / norm of row i",
                      .source = "Liu et al. 2024, arXiv 2402.09353",
                      .use = "adapting a trained model (run.init_from) at a very low rank",
                      .validated = "ten steps of PEFT's DoRA in f64 (1e-9)"}};
}

}  // namespace switchyard::methods

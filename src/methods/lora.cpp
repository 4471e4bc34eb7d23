// LoRA (Hu et al. 2021): y = x (W + alpha/r B A)', W frozen at its initial value, A and B trained.
#include "core/rng.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class Lora : public LowRankMethod {
  public:
    void initialise(const ModelContext& context) override {
        if (option_text(context.config.method, "init") == "plain") return initialise_plain(context);
        for (const Adapted& x : adapted_) {  // as in the baseline of the SwitchLoRA paper, section 4.1
            const FactorBounds bounds =
                switchlora_bounds(x.linear->out().size, x.linear->in().size, x.adapter->low_rank());
            for (Parameter* factor : x.adapter->parameters()) {
                const double bound = factor == &x.adapter->a() ? bounds.a : bounds.b;
                const std::uint64_t key = stream_key(context.config.run.seed, factor->shard.name);
                for (std::int64_t slot = 0; slot < factor->value.dim(0); ++slot)
                    fill_factor_row(*factor, factor->value.rows(slot, 1), slot, key, bound);
            }
            x.adapter->subtract_from_base(*x.linear);
        }
    }
};

}  // namespace

MethodEntry lora() {
    const MethodOption init{.key = "init",
                            .type = MethodOption::Type::text,
                            .default_value = "plain",
                            .help = "plain: A uniform, B zero; switchlora: both drawn as there",
                            .choices = {"plain", "switchlora"}};
    return {.options = {.name = "lora",
                        .help = "low-rank factors beside frozen weights",
                        .options = {rank_option(), alpha_option("32"), strategy_option(), init},
                        .lr = 1e-3},
            .create = [](const Config&) -> std::unique_ptr<Method> { return std::make_unique<Lora>(); },
            .resolve = resolve_low_rank,
            .check = check_low_rank,
            .guide = {.equation = "y = x (W + alpha/rank B A)', W frozen",
                      .source = "Hu et al. 2021, arXiv 2106.09685",
                      .use = "adapting a trained model (run.init_from); learns at low rank only",
                      .validated = "ten steps of PEFT's LoRA in f64 (1e-9)"}};
}

}  // namespace switchyard::methods

// LoRA (Hu et al. 2021): y = x (W + alpha/r B A)', W frozen at its initial value, A and B trained.
#include "methods/low_rank_method.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class Lora : public LowRankMethod {
  public:
    void initialise(const ModelContext& context) override { initialise_as_asked(context); }
};

}  // namespace

MethodEntry lora() {
    return {.options = {.name = "lora",
                        .help = "low-rank factors beside frozen weights",
                        .options = {rank_option(), alpha_option("32"), strategy_option(), init_option()},
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

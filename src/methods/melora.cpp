// MELoRA (Ren et al. 2024, arXiv 2402.17263): k pairs of rank r beside each frozen W, each on its own inputs
// and outputs: y = x (W + alpha/r blockdiag(B_1 A_1, ..., B_k A_k))'. As many parameters as LoRA of rank r,
// and an update of rank k r.
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/mini_adapter.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

/// The key of a linear's number of minis.
const char* key_of(const Linear& linear) {
    return linear.name().find(".mlp.") == std::string::npos ? "minis" : "minis_mlp";
}

class Melora : public Method {
  public:
    std::unique_ptr<Adapter> attach(const ModelContext& context, Linear& linear) override {
        const MethodConfig& method = context.config.method;
        const std::int64_t low_rank = option_integer(method, "rank");
        auto adapter =
            std::make_unique<MiniAdapter>(context, linear, low_rank, option_integer(method, key_of(linear)),
                                          option_real(method, "alpha") / static_cast<double>(low_rank));
        adapted_.push_back({&linear, adapter.get()});
        return adapter;
    }
    void initialise(const ModelContext& context) override {
        for (const auto& [linear, adapter] : adapted_) {
            const double fan_in =
                static_cast<double>(linear->in().size) / static_cast<double>(adapter->minis());
            adapter->draw_a(stream_key(context.config.run.seed, adapter->a().shard.name),
                            1 / std::sqrt(fan_in));
            kernels::zero(adapter->b().value);
        }
    }
    /// What readers of weights alone must know.
    void visit_state(StateIo& io, Optimizer&) override {
        for (const auto& [linear, adapter] : adapted_) {
            const std::string stem = "/model/" + linear->name();
            for (const char* factor : {".lora_A", ".lora_B"})
                io.note(stem + factor, "scale", adapter->scale());
            if (adapter->minis() == 1) continue;
            io.note(stem + ".lora_A", "minis", adapter->minis());
            io.note(stem + ".weight", "effective_weight", std::string("lora_A lora_B minis"));
        }
    }
    std::optional<Refusal> refusal(Use use) const override {
        if (use != Use::export_adapters) return std::nullopt;
        return Refusal{"PEFT has no adapter of minis", "leave --adapters out: everything is merged then"};
    }

  private:
    struct Adapted {
        Linear* linear;
        MiniAdapter* adapter;
    };
    std::vector<Adapted> adapted_;
};

/// The greatest common divisors of the dimensions of all matrices of attention, or of the MLP.
std::int64_t common_divisor(const ModelConfig& m, bool mlp) {
    return std::gcd(m.hidden_size, mlp ? m.ffn_size : m.kv_size());
}

std::int64_t largest_divisor(std::int64_t number, std::int64_t at_most) {
    std::int64_t divisor = std::min(number, at_most);
    while (number % divisor != 0) --divisor;
    return divisor;
}

std::int64_t smallest_mini(const Config& config) {
    const ModelConfig& m = config.model;
    const std::int64_t attention =
                           std::min(m.hidden_size, m.kv_size()) / option_integer(config.method, "minis"),
                       mlp = std::min(m.hidden_size, m.ffn_size) / option_integer(config.method, "minis_mlp");
    return std::min(attention, mlp);
}

void resolve(Config& config) {
    auto& options = config.method.options;
    for (const bool mlp : {false, true}) {
        std::string& minis = options.at(mlp ? "minis_mlp" : "minis");
        const std::int64_t wanted = mlp ? option_integer(config.method, "minis") : 2;
        if (minis == "auto")
            minis = std::to_string(
                largest_divisor(common_divisor(config.model, mlp), std::max<std::int64_t>(1, wanted)));
    }
    if (options.at("rank") != "auto") return;
    resolve_low_rank(config);
    const std::int64_t most = std::max<std::int64_t>(1, smallest_mini(config));
    options.at("rank") = std::to_string(std::min(option_integer(config.method, "rank"), most));
}

void check(const Config& config) {
    for (const bool mlp : {false, true}) {
        const char* key = mlp ? "minis_mlp" : "minis";
        const std::int64_t minis = option_integer(config.method, key),
                           common = common_divisor(config.model, mlp);
        require(common % minis == 0,
                "method.{} = {} does not divide the matrices of the {} (a mini has an equal share of inputs "
                "and of outputs); use a divisor of {}, for example {}",
                key, minis, mlp ? "MLP" : "attention", common, largest_divisor(common, minis));
    }
    const std::int64_t low_rank = option_integer(config.method, "rank"), most = smallest_mini(config);
    require(low_rank <= most,
            "method.rank = {} does not fit a mini of {} inputs or outputs (a low-rank pair has at most that "
            "many vectors); use 1 to {}, or fewer minis",
            low_rank, most, most);
}

MethodOption minis_option(const std::string& key, const std::string& help) {
    return {.key = key,
            .type = MethodOption::Type::integer,
            .default_value = "auto",
            .help = help,
            .minimum = 1,
            .maximum = 1e6};
}

}  // namespace

MethodEntry melora() {
    MethodOption rank = rank_option();
    rank.help = "rank of each pair; auto: hidden_size / 4, at most the size of a mini";
    return {.options = {.name = "melora",
                        .help = "several low-rank pairs on the diagonal beside each frozen weight",
                        .options = {rank, alpha_option("16"),
                                    minis_option("minis",
                                                 "pairs of a matrix of the attention; auto: 2, if "
                                                 "it divides the dimensions"),
                                    minis_option("minis_mlp",
                                                 "pairs of a matrix of the MLP; auto: as minis, "
                                                 "or the next divisor of the dimensions")},
                        .lr = 4e-4},
            .create = [](const Config&) -> std::unique_ptr<Method> { return std::make_unique<Melora>(); },
            .resolve = resolve,
            .check = check,
            .guide = {.equation = "y = x (W + alpha/rank blockdiag(B_1 A_1, ..., B_k A_k))', W frozen",
                      .source = "Ren et al. 2024, arXiv 2402.17263",
                      .use = "adapting a trained model (run.init_from) at a higher rank for the same memory",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

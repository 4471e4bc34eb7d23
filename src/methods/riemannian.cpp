// Riemannian preconditioned LoRA, scaled AdamW (Zhang & Pilanci 2024, arXiv 2402.02347): y = x (W + alpha/r B
// A)', W frozen, and AdamW gets dA~ = (B' B + damping I)^-1 dA and dB~ = dB (A A' + damping I)^-1 in place of
// dA and dB (section 4 there). Both preconditioners are of the factors before the update, as in PEFT; the
// published code takes the updated A for B. The gradient's norm and its clipping are those of dA and dB.
#include "core/error.hpp"
#include "kernels/cholesky.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/cholesky_defects.hpp"
#include "methods/parts/factor_grams.hpp"
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class Riemannian : public LowRankMethod {
  public:
    explicit Riemannian(const Config& config) : damping_(option_real(config.method, "damping")) {}

    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext& context) override { initialise_as_asked(context); }
    void before_update(Optimizer&, std::int64_t step) override;
    void end_step(std::span<const double> scalars, MethodReport&) override;
    double update_operations() const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<LowRankAdapter>(context, linear, low_rank(context), scale(context),
                                                FactorLayout::long_rows);
    }
    void adapted(const ModelContext&) override {
        grams_.add(*adapted_.back().linear, *adapted_.back().adapter);
    }

  private:
    using Which = FactorGrams::Which;

    double damping_;
    FactorGrams grams_;
    const Topology* topology_ = nullptr;
    CholeskyDefects defects_;  // (2 pairs): of cut factors, then of the others
    std::vector<kernels::DividedRows> divided_;
};

void Riemannian::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    grams_.allocate(context);
    defects_.allocate(context.arena, optimizer.scalars(), 2 * grams_.num_pairs());
}

void Riemannian::before_update(Optimizer& optimizer, std::int64_t) {
    const std::int64_t pairs = grams_.num_pairs();
    for (const Which which : {Which::cut, Which::whole}) {
        const Tensor factors = grams_.form(which);
        kernels::cholesky(factors, damping_, defects_.of(which == Which::cut ? 0 : pairs, pairs));
        divided_.clear();
        for (std::int64_t i = 0; i < pairs; ++i) {
            const int partner = optimizer.index_of(&grams_.partner(i, which));
            const std::int64_t r = factors.dim(1);
            divided_.push_back({factors.rows(i, 1).reshape({r, r}),
                                optimizer.owned()[static_cast<std::size_t>(partner)].owned_gradient()});
        }
        kernels::solve_rows(divided_);
    }
    defects_.find_worst();
}

/// All ranks have the same Gram matrices, so the verdict is the same.
void Riemannian::end_step(std::span<const double> scalars, MethodReport&) {
    const std::int64_t bad = defects_.first_bad(scalars), pairs = grams_.num_pairs();
    if (bad < 0) return;
    const Adapted& x = adapted_[static_cast<std::size_t>(bad % pairs)];
    const Which which = bad < pairs ? Which::cut : Which::whole;
    const bool of_a = &grams_.partner(bad % pairs, which) == &x.adapter->b();
    fail<AgreedError>(
        "{} of {} plus method.damping = {} is not positive definite (its gradient cannot be preconditioned: "
        "the factors are very large or their vectors dependent, and the damping is below the rounding); "
        "resume from the last checkpoint with a larger method.damping or a smaller optim.lr",
        of_a ? "A A'" : "B' B", x.linear->name(), damping_);
}

double Riemannian::update_operations() const {
    double sum = grams_.operations();
    const double ranks = topology_->world.size();
    for (const Adapted& x : adapted_) {
        const double r = static_cast<double>(x.adapter->low_rank()),
                     rows = static_cast<double>(x.linear->in().size + x.linear->out().size);
        sum += 2 * r * r * rows + ranks * 2 * r * r * r / 3;
    }
    return sum;
}

std::vector<Traffic> Riemannian::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    Traffic step = optimizer.plan_traffic();
    step.add(TrafficGroup::other, grams_.bytes());
    return std::vector<Traffic>(static_cast<std::size_t>(steps), step);
}

void check(const Config& config) {
    check_low_rank(config);
    const std::int64_t low_rank = option_integer(config.method, "rank");
    require(low_rank <= kernels::most_cholesky_rows,
            "method.rank = {} is more than {} (matrices of rank x rank are factored in every step); use at "
            "most {}",
            low_rank, kernels::most_cholesky_rows, kernels::most_cholesky_rows);
}

}  // namespace

MethodEntry riemannian() {
    const MethodOption damping{.key = "damping",
                               .type = MethodOption::Type::real,
                               .default_value = "0.01",
                               .help =
                                   "added to the diagonals of B' B and A A' (PEFT 0.01; published runs "
                                   "1e-7 to 100)",
                               .minimum = 1e-12,
                               .maximum = 1e9};
    return {
        .options = {.name = "riemannian",
                    .help = "low-rank factors whose gradients are preconditioned by each other",
                    .options = {rank_option(), alpha_option("32"), strategy_option(), init_option(), damping},
                    .lr = 8e-4},
        .create = [](const Config& config) -> std::unique_ptr<Method> {
            return std::make_unique<Riemannian>(config);
        },
        .resolve = [](Config& config) { resolve_low_rank(config, kernels::most_cholesky_rows); },
        .check = check,
        .guide = {.equation = "as lora; AdamW of (B' B + damping I)^-1 dA and dB (A A' + damping I)^-1",
                  .source = "Zhang & Pilanci 2024, arXiv 2402.02347",
                  .use = "adapting a trained model (run.init_from) where A and B differ much in size",
                  .validated = "ten steps of PEFT's preconditioner in f64 (1e-9)"}};
}

}  // namespace switchyard::methods

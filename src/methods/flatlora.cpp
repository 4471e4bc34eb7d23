// Flat-LoRA (Li et al. 2024, arXiv 2409.14396): the expected loss of y = x (W' + E)' with W' = W + alpha/r B A
// and E_ij ~ N(0, sigma_t^2 / n |row i of W'|^2) is minimised; W frozen, A and B trained. One E is drawn in
// each step, for all its micro-batches; sigma_t = noise (1 - cos(pi t / steps)) / 2 grows (section 3.3 there).
// E is in merged copies alone, from a keyed stream, so that nothing is added to W and taken off again.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/rng.hpp"
#include "kernels/random.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/row_norms.hpp"
#include "methods/registry.hpp"
#include "model/transformer.hpp"

namespace switchyard::methods {
namespace {

/// A pair whose merged copy may have noise.
class NoisyAdapter : public LowRankAdapter {
  public:
    NoisyAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank, double scale)
        : LowRankAdapter(context, linear, low_rank, scale),
          shard_(linear.shard()),
          norms_(context, linear, low_rank) {}

    bool merged() const override { return true; }
    void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) override {
        LowRankAdapter::merge(base_rows, row0, out);
        if (std_ == 0) return;
        const std::int64_t valid = std::clamp<std::int64_t>(shard_.rows - row0, 0, out.dim(0));
        kernels::add_normal(out, {shard_.global[1], shard_.row0 + row0, shard_.col0, valid, shard_.cols}, key_,
                            std_, norms_.values().rows(row0, out.dim(0)));
    }
    Cost cost(const Linear& linear) const override {
        Cost cost = cost_of_merged(linear, low_rank());
        cost.step = norms_.cost(linear, low_rank());
        return cost;
    }

    RowNorms& norms() { return norms_; }
    /// Copies merged from now on have noise of this stream with `std` times the norm of each row; 0: none.
    void set_noise(std::uint64_t key, double std) {
        key_ = key;
        std_ = std;
    }

  private:
    Shard shard_;
    RowNorms norms_;
    std::uint64_t key_ = 0;
    double std_ = 0;
};

class FlatLora : public LowRankMethod {
  public:
    explicit FlatLora(const Config& config)
        : noise_(option_real(config.method, "noise")),
          per_replica_(option_boolean(config.method, "noise_per_replica")),
          steps_(config.run.steps),
          seed_(config.run.seed) {}

    void allocate(const ModelContext& context, Transformer& model, Optimizer&) override {
        model_ = &model;
        replica_ = per_replica_ ? fmt::format(" replica {}", context.topology.dp_rank()) : "";
    }
    void initialise(const ModelContext& context) override {
        initialise_plain(context);
        norms_.base_changed();
    }
    void visit_function(StateIo& io) override {
        if (io.loading()) norms_.base_changed();
    }
    /// The function is that of W'.
    void weights_changed(const ModelContext&, std::int64_t) override {
        for (const Adapted& x : adapted_) of(x).set_noise(0, 0);
    }
    void begin_step(std::int64_t step) override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  protected:
    std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext& context, const Linear& linear) override {
        return std::make_unique<NoisyAdapter>(context, linear, low_rank(context), scale(context));
    }
    void adapted(const ModelContext& context) override {
        const Adapted& x = adapted_.back();
        norms_.add(context, *x.linear, *x.adapter, of(x).norms());
    }

  private:
    static NoisyAdapter& of(const Adapted& x) { return static_cast<NoisyAdapter&>(*x.adapter); }
    /// sigma_t.
    double noise_of(std::int64_t step) const {
        const double part = static_cast<double>(step) / static_cast<double>(steps_);
        return 0.5 * noise_ * (1 - std::cos(std::numbers::pi * part));
    }

    double noise_;
    bool per_replica_;
    std::int64_t steps_;
    std::uint64_t seed_;
    std::string replica_;  // in the names of streams
    Transformer* model_ = nullptr;
    AllRowNorms norms_;
};

void FlatLora::begin_step(std::int64_t step) {
    LowRankMethod::begin_step(step);
    norms_.measure();
    for (const Adapted& x : adapted_)
        of(x).set_noise(stream_key(seed_, fmt::format("{}.weight noise {}{}", x.linear->name(), step, replica_)),
                        noise_of(step) / std::sqrt(static_cast<double>(x.linear->in().size)));
    model_->weights_changed();
}

std::vector<Traffic> FlatLora::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    Traffic step = optimizer.plan_traffic();
    norms_.plan(step);
    return std::vector<Traffic>(static_cast<std::size_t>(steps), step);
}

void check(const Config& config) {
    check_low_rank(config);
    require(!option_boolean(config.method, "noise_per_replica") || !config.parallel.shard_frozen,
            "method.noise_per_replica with parallel.shard_frozen (data-parallel ranks gather the same copies of "
            "weights, so they cannot have noise of their own); use one of them");
}

}  // namespace

MethodEntry flatlora() {
    const MethodOption noise{.key = "noise",
                             .type = MethodOption::Type::real,
                             .default_value = "0.05",
                             .help = "standard deviation of the noise at the end of the run, relative to the "
                                     "root mean square of a row of the weight",
                             .minimum = 0,
                             .maximum = 100};
    const MethodOption per_replica{.key = "noise_per_replica",
                                   .type = MethodOption::Type::boolean,
                                   .default_value = "false",
                                   .help = "each data-parallel rank draws its own noise"};
    return {.options = {.name = "flatlora",
                        .help = "low-rank factors trained under noise on the whole weight, for flat minima",
                        .options = {rank_option(), alpha_option("16"), noise, per_replica},
                        .lr = 1e-3},
            .create = [](const Config& config) -> std::unique_ptr<Method> {
                return std::make_unique<FlatLora>(config);
            },
            .resolve = resolve_low_rank,
            .check = check,
            .guide = {.equation = "y = x (W + alpha/rank B A + E)', E drawn in each step, none in evaluation",
                      .source = "Li et al. 2024, arXiv 2409.14396",
                      .use = "adapting a trained model (run.init_from) on little data",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

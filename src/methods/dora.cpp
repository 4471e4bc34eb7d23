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
    void visit_function(StateIo& io) override { base_changed_ = base_changed_ || io.loading(); }
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
    using Vector = Tensor (MagnitudeAdapter::*)() const;
    /// The norms of the rows of W + s B A of all matrices. Collective.
    void measure_norms();
    /// rows_, so many more that the ranks of dp have equal shares of a sum.
    std::int64_t rows_of_all() const;
    /// A vector of each matrix <- its sum over the ranks that have a part of it, all matrices together.
    void sum_parts(Vector, TrafficGroup) const;

    bool exact_;
    bool base_changed_ = true;  // since the norms of W were computed
    bool sharded_ = false;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    std::int64_t rows_ = 0, cut_rows_ = 0;  // of all matrices; of row-parallel ones
    Tensor reduce_;                         // shared: the vectors of all matrices, and work space of a sum
};

void Dora::adapted(const ModelContext& context) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    sharded_ = context.config.parallel.shard_frozen && topology_->dp_size() > 1;
    const Linear& linear = *adapted_.back().linear;
    rows_ += linear.out().padded;
    if (linear.split() == Split::row) cut_rows_ += linear.out().padded;
    reduce_ =
        context.arena.shared(context.accumulate(), {2 * rows_of_all() + 64 * topology_->world.size()});
}

std::int64_t Dora::rows_of_all() const {
    const std::int64_t even = std::int64_t{16} * topology_->dp_size();
    return (rows_ + even - 1) / even * even;
}

void Dora::sum_parts(Vector vector, TrafficGroup group) const {
    const bool cut = topology_->tp_size() > 1;
    if (!cut && !sharded_) return;
    const Tensor all = reduce_.rows(0, rows_of_all()),
                 work = reduce_.rows(all.size(), reduce_.size() - all.size());
    kernels::zero(all.rows(rows_, all.size() - rows_));
    kernels::RowBatch collect, distribute;
    std::int64_t next[] = {0, cut_rows_};  // of rows that are cut over tp, which come first; of others
    for (const Adapted& x : adapted_) {
        const bool of_row = x.linear->split() == Split::row;
        const Tensor own = (of(x).*vector)();
        std::int64_t& first = next[of_row ? 0 : 1];
        const Tensor place = all.rows(first, own.size());
        first += own.size();
        if (!of_row && !sharded_) continue;
        const auto as_row = [](Tensor t) { return kernels::whole_rows(t.reshape({1, t.size()})); };
        collect.copy(as_row(own), as_row(place));
        distribute.copy(as_row(place), as_row(own));
    }
    collect.run();
    if (cut) start_all_reduce(topology_->tp, all.rows(0, cut_rows_), work, *traffic_, group).wait();
    if (sharded_) start_all_reduce(topology_->dp, all, work, *traffic_, group).wait();
    distribute.run();
}

void Dora::measure_norms() {
    for (const Adapted& x : adapted_) of(x).square_norms(*x.linear, base_changed_);
    base_changed_ = false;
    sum_parts(&MagnitudeAdapter::norms, TrafficGroup::values);
    for (const Adapted& x : adapted_) of(x).take_roots();
}

void Dora::initialise(const ModelContext& context) {
    initialise_plain(context);
    base_changed_ = true;
    measure_norms();
    for (const Adapted& x : adapted_) of(x).magnitude_from_norms();
}

void Dora::weights_changed(const ModelContext&, std::int64_t) {
    measure_norms();
    for (const Adapted& x : adapted_) of(x).form_row_scale();
}

void Dora::reduce_gradients(Optimizer& optimizer) {
    for (const Adapted& x : adapted_) of(x).close_gradients();
    if (exact_) {
        sum_parts(&MagnitudeAdapter::sums, TrafficGroup::gradients);
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
    const auto add = [&](TrafficGroup group) {
        const auto element = static_cast<double>(size_of(reduce_.dtype()));
        step.add(group, all_reduce_bytes(element * static_cast<double>(cut_rows_), topology_->tp_size()));
        if (sharded_)
            step.add(group, all_reduce_bytes(element * static_cast<double>(rows_of_all()),
                                             topology_->dp_size()));
    };
    add(TrafficGroup::values);
    if (exact_) add(TrafficGroup::gradients);
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

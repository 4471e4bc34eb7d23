// ReLoRA (Lialin et al. 2023, arXiv 2307.05695): LoRA whose product is merged into W every merge_interval
// updates. Then A is drawn anew, B is zero, the moments of both are pruned, and the learning rate warms up
// again. A is never zero together with B: neither would get a gradient (the released code's first cycle).
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/magnitudes.hpp"
#include "kernels/random.hpp"
#include "kernels/transfer.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/residual_probe.hpp"
#include "methods/registry.hpp"
#include "optim/schedule.hpp"

namespace switchyard::methods {
namespace {

class Relora : public LowRankMethod {
  public:
    explicit Relora(const Config& config)
        : optim_(config.optim),
          steps_(config.run.steps),
          interval_(option_integer(config.method, "merge_interval")),
          warmup_(option_integer(config.method, "restart_warmup")),
          reset_(option_text(config.method, "reset")),
          prune_ratio_(option_real(config.method, "prune_ratio")) {}

    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    /// From 0 at the first step of a cycle on a straight line to the schedule's value where the warm-up ends.
    double lr_multiplier(std::int64_t step) const override;
    MethodReport after_gather(Optimizer&, std::int64_t step) override;
    void end_step(std::span<const double> scalars, MethodReport&) override;
    std::vector<std::string> notes(const Config&) const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  private:
    bool merges_after(std::int64_t step) const { return (step + 1) % interval_ == 0; }
    void merge(const Adapted&);
    /// A ~ U(+-1/sqrt(n)) from the stream of this restart, B = 0, masters as values.
    void restart(Optimizer&, std::int64_t number);
    /// visit(owned parameter of a factor) for every factor, in an order that all ranks share.
    template <class Visit>
    void for_each_factor(Optimizer&, const Visit&) const;
    void prune(Optimizer&, std::int64_t restart);
    void prune_smallest(const std::vector<kernels::RowPart>& moments);
    void prune_at_random(Optimizer&, std::int64_t restart);
    /// Bytes of the sums of histograms at a merge.
    double histogram_bytes() const;

    const OptimConfig optim_;
    const std::int64_t steps_, interval_, warmup_;
    const std::string reset_;
    const double prune_ratio_;
    std::uint64_t seed_ = 0;
    const Comm* world_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType accumulate_ = DType::f32;
    std::vector<std::int64_t> rank_;   // of the magnitude that bounds what is pruned, for each moment
    Tensor wide_a_, wide_b_;           // accumulate type, flat: a pair; a mask of a factor
    Tensor scratch_;                   // of kernels::add_low_rank, shared
    Tensor counts_, summing_, found_;  // histograms, work space of their sums, bytes found
    ResidualProbe probe_;
    const Adapted* sampled_ = nullptr;  // the matrix whose residual was measured in the last step
};

/// Row i of the factor's tensor is row i of the stream.
void fill_factor(const Parameter& factor, Tensor values, std::uint64_t key, double bound) {
    const Shard& shard = factor.shard;
    kernels::fill_uniform(values, {shard.global[1], 0, shard.col0, values.dim(0), shard.cols}, key, bound);
}

/// Each rank sums the same number of histograms.
std::int64_t padded_items(std::int64_t items, int ranks) {
    return (items + ranks - 1) / ranks * ranks;
}

void Relora::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    seed_ = context.config.run.seed;
    world_ = &context.topology.world;
    traffic_ = &context.traffic;
    accumulate_ = context.accumulate();
    Arena& arena = context.arena;
    std::int64_t widest_in = 0, widest = 0, scratch_bytes = 0;
    rank_.clear();
    for (const Adapted& x : adapted_) {
        const std::int64_t rows = x.linear->base().slice.kept, in = x.linear->in().padded;
        widest_in = std::max(widest_in, in);
        widest = std::max({widest, in, x.linear->out().padded});
        scratch_bytes = std::max(scratch_bytes, static_cast<std::int64_t>(kernels::frozen_scratch_bytes(
                                                    rows, in, context.dtype)));
        for (const Parameter* factor : {&x.adapter->a(), &x.adapter->b()}) {
            const std::int64_t last = factor->shard.global.size() - 1;
            const auto bound = static_cast<std::int64_t>(prune_ratio_ * static_cast<double>(last));
            rank_.insert(rank_.end(), 2, std::min(last, bound));
        }
    }
    const auto take = [&](DType dtype, Shape shape) {
        return arena.take(MemoryClass::workspace, dtype, shape);
    };
    const std::int64_t low_rank = this->low_rank(context);
    if (reset_ == "random" || context.dtype != accumulate_)
        wide_a_ = take(accumulate_, {low_rank * widest});
    if (context.dtype != accumulate_) wide_b_ = take(accumulate_, {low_rank * widest});
    scratch_ = arena.shared(DType::i16, {(scratch_bytes + 1) / 2});
    probe_.allocate(context, optimizer.scalars(), widest_in, low_rank);
    found_ = take(DType::i64, {static_cast<std::int64_t>(rank_.size()), 2});
    if (reset_ != "magnitude") return;
    const std::int64_t items = padded_items(static_cast<std::int64_t>(rank_.size()), world_->size());
    counts_ = take(DType::f64, {items, kernels::magnitude_bins});
    if (world_->size() > 1)
        summing_ = take(DType::f64, {static_cast<std::int64_t>(counts_.size() + 8 * world_->size())});
}

double Relora::lr_multiplier(std::int64_t step) const {
    const std::int64_t begin = step / interval_ * interval_, since = step - begin;
    if (begin == 0 || since >= warmup_) return 1;
    const double now = lr_schedule(optim_, step, steps_), then = lr_schedule(optim_, begin + warmup_, steps_);
    if (now <= 0) return 0;
    return static_cast<double>(since) / static_cast<double>(warmup_) * then / now;
}

void Relora::merge(const Adapted& x) {
    const FrozenBase& base = x.linear->base();
    const std::int64_t rows = base.slice.local, slots = x.adapter->low_rank();
    if (rows == 0) return;
    const Tensor a = x.adapter->a().value, b = x.adapter->b().value;
    kernels::LowRankFactors factors{a, b, x.adapter->scale(), base.slice.begin};
    if (a.dtype() != accumulate_) {
        factors = {wide_a_.view(accumulate_, a.shape()), wide_b_.view(accumulate_, {slots, rows}),
                   x.adapter->scale(), 0};
        kernels::RowBatch widened;
        widened.copy(kernels::whole_rows(a), kernels::whole_rows(factors.a));
        widened.copy({b, kernels::Rows::range(0, slots), base.slice.begin, rows},
                     kernels::whole_rows(factors.b_transposed));
        widened.run();
    }
    kernels::add_low_rank(base.local_rows(), factors, scratch_);
}

template <class Visit>
void Relora::for_each_factor(Optimizer& optimizer, const Visit& visit) const {
    for (const Adapted& x : adapted_)
        for (Parameter* factor : {&x.adapter->a(), &x.adapter->b()})
            visit(optimizer.owned()[optimizer.index_of(factor)]);
}

void Relora::restart(Optimizer& optimizer, std::int64_t number) {
    std::vector<Tensor> zeroed;
    for (const Adapted& x : adapted_) {
        const Parameter& a = x.adapter->a();
        const std::uint64_t key = stream_key(seed_, fmt::format("{} restart {}", a.shard.name, number));
        const double bound = 1 / std::sqrt(static_cast<double>(a.shard.global[1]));
        fill_factor(a, a.value, key, bound);
        zeroed.push_back(x.adapter->b().value);
    }
    kernels::zero(zeroed);
    for_each_factor(optimizer, [](OwnedParameter& owned) { owned.masters_from_values(); });
}

void Relora::prune(Optimizer& optimizer, std::int64_t restart) {
    if (reset_ == "random") return prune_at_random(optimizer, restart);
    if (reset_ == "zero") {
        kernels::RowBatch zeroed;
        for_each_factor(optimizer, [&](const OwnedParameter& owned) {
            const kernels::Rows owned_here = kernels::Rows::range(0, owned.num_rows());
            for (const Tensor& part : owned.moments()) zeroed.zero(kernels::whole_rows(part, owned_here));
        });
        return zeroed.run();
    }
    std::vector<kernels::RowPart> moments;
    for_each_factor(optimizer, [&](const OwnedParameter& owned) {
        const kernels::AdamWRows state = owned.adamw_rows({});
        for (const Tensor& moment : {state.m, state.v})
            moments.push_back({moment, kernels::Rows::range(0, owned.num_rows()), 0,
                               owned.parameter().shard.cols});
    });
    prune_smallest(moments);
}

void Relora::prune_smallest(const std::vector<kernels::RowPart>& moments) {
    std::vector<std::int64_t> start;
    for (const std::int64_t rank : rank_) start.insert(start.end(), {0, rank});
    kernels::upload(start.data(), found_);
    kernels::zero(counts_);  // the rows that make the sums of all ranks equal
    const Tensor counts = counts_.rows(0, found_.dim(0));
    for (int byte = 0; byte < kernels::magnitude_bytes(accumulate_); ++byte) {
        kernels::magnitude_histogram(moments, byte, found_, counts);
        start_all_reduce(*world_, counts_, summing_, *traffic_, TrafficGroup::other).wait();
        kernels::select_byte(counts, found_);
    }
    std::vector<kernels::Dropped> dropped;
    for (const kernels::RowPart& moment : moments) dropped.push_back({moment, moment});
    kernels::drop_up_to(dropped, found_);
}

void Relora::prune_at_random(Optimizer& optimizer, std::int64_t restart) {
    const std::int64_t bits = accumulate_ == DType::f64
                                  ? std::bit_cast<std::int64_t>(prune_ratio_)
                                  : std::bit_cast<std::int32_t>(static_cast<float>(prune_ratio_));
    const std::array<std::int64_t, 2> limit{bits, 0};
    kernels::upload(limit.data(), found_.rows(0, 1));
    for_each_factor(optimizer, [&](const OwnedParameter& owned) {
        if (owned.num_rows() == 0) return;
        const Parameter& factor = owned.parameter();
        const kernels::AdamWRows state = owned.adamw_rows({});
        const Tensor mask = wide_a_.view(accumulate_, factor.value.shape());
        for (const auto& [name, moment] : {std::pair{"m", state.m}, std::pair{"v", state.v}}) {
            const auto stream = fmt::format("{} {} restart {}", factor.shard.name, name, restart);
            fill_factor(factor, mask, stream_key(seed_, stream), 1);
            const kernels::Dropped kept{
                {moment, kernels::Rows::range(0, owned.num_rows()), 0, factor.shard.cols},
                {mask, state.rows, 0, factor.shard.cols}};
            kernels::drop_up_to({&kept, 1}, found_.rows(0, 1));
        }
    });
}

MethodReport Relora::after_gather(Optimizer& optimizer, std::int64_t step) {
    sampled_ = nullptr;
    if (!merges_after(step)) return {};
    const std::int64_t number = (step + 1) / interval_;
    sampled_ = &adapted_[static_cast<std::size_t>(number) % adapted_.size()];
    probe_.before(*sampled_->linear);
    for (const Adapted& x : adapted_) merge(x);
    restart(optimizer, number);
    prune(optimizer, number);
    probe_.after(*sampled_->linear);
    MethodReport report;
    for (const Adapted& x : adapted_) report.vectors_switched += 2 * x.adapter->low_rank();
    report.moments_reset = report.vectors_switched;
    report.residual_of = sampled_->linear->name();
    return report;
}

void Relora::end_step(std::span<const double> scalars, MethodReport& report) {
    if (sampled_) report.residual = probe_.judge(scalars, *sampled_->linear, sampled_->adapter->low_rank());
}

double Relora::histogram_bytes() const {
    if (counts_.empty() || world_->size() == 1) return 0;
    return kernels::magnitude_bytes(accumulate_) *
           all_reduce_bytes(static_cast<double>(counts_.bytes()), world_->size());
}

std::vector<Traffic> Relora::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    std::vector<Traffic> plan = LowRankMethod::plan_traffic(optimizer, steps);
    for (std::int64_t step = 0; step < steps; ++step)
        if (merges_after(step))
            plan[static_cast<std::size_t>(step)].add(TrafficGroup::other, histogram_bytes());
    return plan;
}

std::vector<std::string> Relora::notes(const Config& config) const {
    if (interval_ < config.run.steps) return {};
    return {fmt::format(
        "no step of {} comes after a merge (method.merge_interval is {}), so the run trains as plain low-rank "
        "factors; lower method.merge_interval, or train longer",
        config.run.steps, interval_)};
}

void check(const Config& config) {
    check_low_rank(config);
    const std::int64_t interval = option_integer(config.method, "merge_interval"),
                       warmup = option_integer(config.method, "restart_warmup");
    require(warmup < interval,
            "method.restart_warmup = {} does not end before the next merge, which comes after {} steps (the "
            "learning rate would never reach its schedule); use a shorter one, or raise "
            "method.merge_interval",
            warmup, interval);
    const std::string reset = option_text(config.method, "reset");
    require(config.optim.state_bits == "32" || reset == "zero",
            "method.reset = {} with optim.state_bits = {} (it keeps some moments by their numbers, of which "
            "there are codes only); use method.reset = zero, or optim.state_bits = 32",
            reset, config.optim.state_bits);
}

}  // namespace

MethodEntry relora() {
    using Type = MethodOption::Type;
    const MethodOption interval{.key = "merge_interval",
                                .type = Type::integer,
                                .default_value = "1000",
                                .unit = "updates",
                                .help = "between merges of the product into the frozen weights",
                                .minimum = 1,
                                .maximum = 1e9};
    const MethodOption warmup{.key = "restart_warmup",
                              .type = Type::integer,
                              .default_value = "100",
                              .unit = "steps",
                              .help = "of rising learning rate after a merge; 0: none",
                              .minimum = 0,
                              .maximum = 1e9};
    const MethodOption reset{.key = "reset",
                             .type = Type::text,
                             .default_value = "zero",
                             .help = "of moments at a merge: all; the smallest of a tensor; drawn ones",
                             .choices = {"zero", "magnitude", "random"}};
    const MethodOption ratio{.key = "prune_ratio",
                             .type = Type::real,
                             .default_value = "0.99",
                             .help = "part of a tensor's moments that magnitude and random set to zero",
                             .minimum = 0,
                             .maximum = 1};
    return {.options = {.name = "relora",
                        .help = "low-rank factors that are merged and restarted again and again",
                        .options = {rank_option(), alpha_option("32"), strategy_option(), interval, warmup,
                                    reset, ratio},
                        .lr = 1e-3},
            .create = [](const Config& c) -> std::unique_ptr<Method> { return std::make_unique<Relora>(c); },
            .resolve = resolve_low_rank,
            .check = check,
            .guide = {.equation = "as lora; every merge_interval updates W += alpha/rank B A, A drawn, B = 0",
                      .source = "Lialin et al. 2023, arXiv 2307.05695",
                      .use = "going on from some steps of full (run.init_from); long runs",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

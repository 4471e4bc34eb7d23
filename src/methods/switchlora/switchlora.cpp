// SwitchLoRA (arXiv 2406.06564): vectors of A and B are continually swapped with candidates from a bank, W
// absorbs the difference, and only the optimizer state of the counterpart is reset. Banks and masters are
// distributed by HomeRule.
#include <algorithm>
#include <array>
#include <deque>
#include <map>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/parts/residual_probe.hpp"
#include "methods/registry.hpp"
#include "methods/switchlora/absorption.hpp"
#include "methods/switchlora/candidate_bank.hpp"
#include "methods/switchlora/switch_schedule.hpp"

namespace switchyard::methods {
namespace {

/// Elements of one segment in the all-gather of the incoming candidates.
std::int64_t gather_capacity(const Comm& group, std::int64_t widest) {
    return std::max(widest, (std::int64_t{1} << 20) / group.size());
}

struct Matrix {
    Linear* linear = nullptr;
    LowRankAdapter* adapter = nullptr;
    SwitchSchedule schedule;
    std::array<CandidateBank, 2> side;  // A, B
};

const SideSwitch& side_of(const Switch& s, int side) {
    return side == 0 ? s.a : s.b;
}

class SwitchLora : public LowRankMethod {
  public:
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void before_update(Optimizer&, std::int64_t step) override;
    MethodReport after_gather(Optimizer&, std::int64_t step) override;
    void end_step(std::span<const double> scalars, MethodReport&) override;
    void visit_state(StateIo&, Optimizer&) override;
    std::vector<std::string> notes(const Config&) const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  protected:
    void adapted(const ModelContext&) override;

  private:
    using Switches = std::vector<Switch>;  // one per matrix
    /// Tensors and owners of the incoming candidates of one group, as they are sent.
    struct Incoming {
        std::vector<Tensor> tensors;
        std::deque<std::vector<int>> owners;
        std::vector<BucketItem> items;
        std::int64_t capacity = 0;
    };
    Incoming incoming(const Comm& group, const Switches&) const;
    std::vector<RowMove> moves(const Switches&) const;
    /// The kernel work of a switch, in this order: incoming candidates are copied from their homes; W
    /// absorbs; the masters of outgoing vectors go home and the moments of counterparts are reset; values are
    /// replaced while rows move; the masters of incoming vectors are set.
    struct Work {
        struct Gather {
            const Comm* group = nullptr;
            std::vector<Tensor> tensors;
            Buckets buckets;
        };
        kernels::RowBatch bring;
        std::vector<Gather> gathers;
        std::vector<AbsorbedSwitch> absorbed;
        kernels::RowBatch release;
        RowMoves moves;
    };
    /// Lists the work for the kernels and updates the tables of owners.
    Work plan(Optimizer&, const Switches&);
    /// visit(side, switch on that side, switch on the other side) for both sides of every matrix that
    /// switches.
    template <class Visit>
    void for_each_switch(const Switches&, const Visit&);

    std::vector<Matrix> matrices_;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType accumulate_ = DType::f32;
    Tensor gathered_;  // work space, flat
    Absorption absorption_;
    ResidualProbe probe_;
    kernels::StepLists lists_;
    const Matrix* sampled_ = nullptr;  // the matrix whose residual was measured in the last step
    std::int64_t sampled_terms_ = 0;
};

SwitchSettings switch_settings(const ModelContext& context, const Linear& linear) {
    return switch_settings(context.config, linear.out().size, linear.in().size);
}

void SwitchLora::adapted(const ModelContext& context) {
    const Adapted& x = adapted_.back();
    const SwitchSettings s = switch_settings(context, *x.linear);
    if (s.low_rank >= s.num_candidates) return;  // there is no candidate to switch to
    const auto bank = [&](int side) {
        Parameter& factor = side == 0 ? x.adapter->a() : x.adapter->b();
        const Comm& group = owner_group(context.topology, factor.tp_gradient);
        return CandidateBank(factor, group, home_rule(context, x.side_number[side], group, s.low_rank),
                             s.num_candidates);
    };
    matrices_.push_back({x.linear, x.adapter, SwitchSchedule(s, x.linear->name()), {bank(0), bank(1)}});
}

OwnershipPlan SwitchLora::ownership(const ModelContext& context, const Parameter& parameter) {
    for (const Matrix& matrix : matrices_) {
        for (int side : {0, 1}) {
            const CandidateBank& x = matrix.side[side];
            if (x.factor != &parameter) continue;
            const SwitchSettings s = switch_settings(context, *matrix.linear);
            const std::int64_t ranks = x.group->size(), r = s.low_rank;
            const std::int64_t at_once = s.most_at_once();
            OwnershipPlan plan{slot_owners(*x.group, x.rule, matrix.schedule.candidates(side)), r, true, 0};
            if (ranks > 1 && s.random_order) plan.capacity = std::min<std::int64_t>(r, x.homed.size());
            if (ranks > 1 && !s.random_order) plan.capacity = std::min(r, (r + ranks - 1) / ranks + 1);
            // Consecutive candidates of the ring are spread evenly, except at the two ends of a lap.
            if (ranks > 1) plan.most_moving = std::min(plan.capacity, at_once);
            if (ranks > 1 && !s.random_order)
                plan.most_moving = std::min(plan.most_moving, (at_once + ranks - 1) / ranks + 2);
            return plan;
        }
    }
    return LowRankMethod::ownership(context, parameter);
}

DType bank_type(const ModelContext& context) {
    const std::string bank = option_text(context.config.method, "bank_dtype");
    require(bank != "bf16" || context.dtype == DType::bf16,
            "method.bank_dtype = bf16 in a run of dtype {} (its candidates would lose digits at each "
            "switch); use f32, or run.dtype = bf16",
            name_of(context.dtype));
    return bank == "f32" || context.dtype != DType::bf16 ? context.accumulate() : DType::bf16;
}

void SwitchLora::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    accumulate_ = context.accumulate();
    if (matrices_.empty()) return;
    Arena& arena = context.arena;
    std::int64_t widest = 0, widest_in = 0, lists = 0;
    for (Matrix& matrix : matrices_) {
        const std::int64_t at_once = switch_settings(context, *matrix.linear).most_at_once();
        for (CandidateBank& x : matrix.side) {
            x.owned = optimizer.index_of(x.factor);
            const std::int64_t width = x.factor->value.dim(1);
            x.bank = arena.take(MemoryClass::bank, bank_type(context),
                                {static_cast<std::int64_t>(x.homed.size()), width});
            x.incoming = arena.take(MemoryClass::workspace, context.dtype, {at_once, width});
            widest = std::max(widest, width);
        }
        widest_in = std::max(widest_in, matrix.linear->in().padded);
        absorption_.expect(context, *matrix.linear, at_once);
        // The lists of a switch: slots, bank rows, storage, gaps and places of candidates; then owned rows,
        // frozen rows, and the rows of buckets.
        for (const CandidateBank& x : matrix.side)
            lists += 16 * at_once + 3 * optimizer.owned()[x.owned].masters().dim(0) + x.factor->value.dim(0);
    }
    const auto take = [&](DType dtype, std::int64_t size) {
        return arena.take(MemoryClass::workspace, dtype, {size});
    };
    const Comm& world = topology_->world;
    if (world.size() > 1)
        gathered_ =
            take(context.dtype, std::max(topology_->dp.size() * gather_capacity(topology_->dp, widest),
                                         world.size() * gather_capacity(world, widest)));
    absorption_.allocate(context);
    probe_.allocate(context, optimizer.scalars(), widest_in, low_rank(context));
    lists_ = kernels::StepLists(arena, lists);
}

void SwitchLora::initialise(const ModelContext& context) {
    for (const Adapted& x : adapted_) {
        const FactorBounds bounds =
            switchlora_bounds(x.linear->out().size, x.linear->in().size, x.adapter->low_rank());
        const auto matrix = std::find_if(matrices_.begin(), matrices_.end(),
                                         [&](const Matrix& m) { return m.adapter == x.adapter; });
        for (int side : {0, 1}) {
            Parameter& factor = *x.adapter->parameters()[side];
            const double bound = side == 0 ? bounds.a : bounds.b;
            const std::uint64_t key = stream_key(context.config.run.seed, factor.shard.name + " candidates");
            for (std::int64_t slot = 0; slot < factor.value.dim(0); ++slot) {
                const std::int64_t c =
                    matrix == matrices_.end() ? slot : matrix->schedule.candidates(side)[slot];
                fill_factor_row(factor, factor.value.rows(slot, 1), c, key, bound);
            }
            if (matrix == matrices_.end()) continue;
            for (std::int32_t c : matrix->side[side].homed)
                fill_factor_row(factor, matrix->side[side].vector(c), c, key, bound);
        }
        x.adapter->subtract_from_base(*x.linear);
    }
}

void SwitchLora::before_update(Optimizer&, std::int64_t) {
    for (Matrix& matrix : matrices_) matrix.schedule.count_down();
}

SwitchLora::Incoming SwitchLora::incoming(const Comm& group, const Switches& switches) const {
    Incoming result;
    std::int64_t widest = 1;
    for (std::size_t i = 0; i < matrices_.size(); ++i)
        for (int side : {0, 1}) {
            const CandidateBank& x = matrices_[i].side[side];
            const SideSwitch& s = side_of(switches[i], side);
            if (x.group != &group || s.slots.empty()) continue;
            std::vector<int>& owner = result.owners.emplace_back();
            for (int candidate : s.incoming) owner.push_back(x.rule.home(candidate));
            result.tensors.push_back(x.incoming.rows(0, switches[i].count()));
            result.items.push_back({x.incoming.dim(1), &owner});
            widest = std::max(widest, x.incoming.dim(1));
        }
    result.capacity = gather_capacity(group, widest);
    return result;
}

SwitchLora::Work SwitchLora::plan(Optimizer& optimizer, const Switches& switches) {
    Work work;
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
        Matrix& matrix = matrices_[i];
        const Switch& s = switches[i];
        if (s.count() == 0) continue;
        work.absorbed.push_back({matrix.linear, matrix.adapter, s.count(), lists_.rows(s.a.slots),
                                 lists_.rows(s.b.slots), matrix.side[0].incoming.rows(0, s.count()),
                                 matrix.side[1].incoming.rows(0, s.count())});
    }
    for_each_switch(switches, [&](CandidateBank& x, const SideSwitch& own, const SideSwitch& other) {
        const OwnedParameter& owned = optimizer.owned()[x.owned];
        std::vector<std::int32_t> places, slots;
        for (std::size_t j = 0; j < own.slots.size(); ++j) {
            if (x.here(own.incoming[j])) places.push_back(static_cast<std::int32_t>(j));
            if (x.here(own.outgoing[j])) slots.push_back(own.slots[j]);
        }
        work.bring.copy(x.rows(own.incoming, lists_), kernels::whole_rows(x.incoming, lists_.rows(places)));
        work.release.copy(kernels::whole_rows(owned.masters(), lists_.rows(owned.stored(slots))),
                          x.rows(own.outgoing, lists_));
        owned.reset_moments(other.slots, lists_, work.release);
    });
    for (const Comm* group : {&topology_->dp, &topology_->world}) {
        Incoming all = incoming(*group, switches);
        if (all.tensors.empty() || group->size() == 1) continue;
        const auto table = std::make_shared<BucketTable>(all.items, group->size(), all.capacity);
        work.gathers.push_back({group, std::move(all.tensors), Buckets(table, lists_.add(table->lists()))});
    }
    work.moves =
        optimizer.plan_moves(moves(switches), lists_);  // from here on owners and storage are the new ones
    std::size_t next = 0;
    for_each_switch(switches, [&](CandidateBank& x, const SideSwitch& own, const SideSwitch&) {
        const OwnedParameter& owned = optimizer.owned()[x.owned];
        const AbsorbedSwitch& absorbed = work.absorbed[next / 2];
        const kernels::Rows& slots = next++ % 2 == 0 ? absorbed.slots_a : absorbed.slots_b;
        const auto k = static_cast<std::int64_t>(own.slots.size());
        work.moves.leave.copy(kernels::whole_rows(x.incoming.rows(0, k)),
                              kernels::whole_rows(x.factor->value, slots));
        work.moves.arrive.copy(x.rows(own.incoming, lists_),
                               kernels::whole_rows(owned.masters(), lists_.rows(owned.stored(own.slots))));
    });
    return work;
}

/// The owners' rows of slots whose candidates are on this rank, in the order of the switch and of x.rows().
template <class Visit>
void SwitchLora::for_each_switch(const Switches& switches, const Visit& visit) {
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
        const Switch& s = switches[i];
        if (s.count() == 0) continue;
        visit(matrices_[i].side[0], s.a, s.b);
        visit(matrices_[i].side[1], s.b, s.a);
    }
}

std::vector<RowMove> SwitchLora::moves(const Switches& switches) const {
    std::vector<RowMove> all;
    for (std::size_t i = 0; i < matrices_.size(); ++i)
        for (int side : {0, 1}) {
            const CandidateBank& x = matrices_[i].side[side];
            const SideSwitch& s = side_of(switches[i], side);
            for (std::size_t j = 0; j < s.slots.size(); ++j)
                all.push_back({x.owned, s.slots[j], x.rule.home(s.outgoing[j]), x.rule.home(s.incoming[j])});
        }
    return all;
}

MethodReport SwitchLora::after_gather(Optimizer& optimizer, std::int64_t step) {
    MethodReport report;
    Switches switches;
    for (Matrix& matrix : matrices_) switches.push_back(matrix.schedule.advance(step));
    // The matrix whose residual is measured; each step takes another one among those that switch.
    sampled_ = nullptr;
    for (std::size_t i = 0; i < matrices_.size() && !sampled_; ++i) {
        const std::size_t candidate = (static_cast<std::size_t>(step) + i) % matrices_.size();
        if (switches[candidate].count() == 0) continue;
        sampled_ = &matrices_[candidate];
        sampled_terms_ = 2 * switches[candidate].count() + sampled_->adapter->low_rank();
    }
    lists_.begin();
    Work work = plan(optimizer, switches);
    for (const Matrix& matrix : matrices_)
        for (int side : {0, 1})
            optimizer.owned()[matrix.side[side].owned].set_frozen(matrix.schedule.frozen(side), lists_,
                                                                  work.moves.arrive);
    lists_.commit();
    work.bring.run();
    for (const Work::Gather& x : work.gathers)
        x.buckets.gather(*x.group, x.tensors, gathered_, *traffic_, TrafficGroup::candidates);
    if (sampled_) probe_.before(*sampled_->linear);
    absorption_.run(work.absorbed);
    work.release.run();
    work.moves.leave.run();
    work.moves.exchange(*traffic_);
    work.moves.close_gaps.run();
    work.moves.arrive.run();
    if (!sampled_) return report;
    for (const Switch& s : switches) report.vectors_switched += 2 * s.count();
    report.moments_reset = report.vectors_switched;
    report.residual_of = sampled_->linear->name();
    probe_.after(*sampled_->linear);
    return report;
}

void SwitchLora::end_step(std::span<const double> scalars, MethodReport& report) {
    if (sampled_) report.residual = probe_.judge(scalars, *sampled_->linear, sampled_terms_);
}

void SwitchLora::visit_state(StateIo& io, Optimizer& optimizer) {
    LowRankMethod::visit_state(io, optimizer);
    for (Matrix& matrix : matrices_) {
        std::vector<std::int64_t> tables = matrix.schedule.state();
        io.integers("/method/" + matrix.linear->name() + "/switch", tables, topology_->world.rank());
        if (io.loading()) {
            matrix.schedule.set_state(tables);
            for (int side : {0, 1}) {
                const CandidateBank& x = matrix.side[side];
                optimizer.assign_owners(
                    x.owned, slot_owners(*x.group, x.rule, matrix.schedule.candidates(side)).owner);
                optimizer.owned()[x.owned].set_frozen(matrix.schedule.frozen(side));
            }
        }
        for (int side : {0, 1}) {
            CandidateBank& x = matrix.side[side];
            x.visit_state(io, "/method/" + matrix.linear->name() + (side == 0 ? "/bank_A" : "/bank_B"),
                          optimizer.owned()[x.owned], matrix.schedule.candidates(side));
        }
    }
    if (io.loading()) optimizer.rebuild_buckets();
}

std::vector<Traffic> SwitchLora::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    SwitchLora future = *this;  // only its schedules are advanced
    std::map<int, std::vector<int>> owners;
    for (const Matrix& matrix : matrices_)
        for (int side : {0, 1}) {
            const CandidateBank& x = matrix.side[side];
            owners[x.owned] = slot_owners(*x.group, x.rule, matrix.schedule.candidates(side)).owner;
        }
    std::vector<Traffic> plan;
    Traffic update = optimizer.plan_traffic(owners);
    for (std::int64_t step = 0; step < steps; ++step) {
        Traffic& traffic = plan.emplace_back(update);
        Switches switches;
        for (Matrix& matrix : future.matrices_) {
            matrix.schedule.count_down();
            switches.push_back(matrix.schedule.advance(step));
        }
        for (const Comm* group : {&topology_->dp, &topology_->world}) {
            const Incoming all = future.incoming(*group, switches);
            if (group->size() > 1 && !all.tensors.empty())
                traffic.add(TrafficGroup::candidates, bucket_bytes(all.items, group->size(), all.capacity,
                                                                   size_of(all.tensors[0].dtype())));
        }
        const std::vector<RowMove> all = future.moves(switches);
        for (const RowMove& move : all) {
            traffic.add(TrafficGroup::moves, optimizer.move_bytes(move));
            owners[move.parameter][move.row] = move.to;
        }
        if (!all.empty()) update = optimizer.plan_traffic(owners);
    }
    return plan;
}

std::vector<std::string> SwitchLora::notes(const Config& config) const {
    struct Shape {
        const Matrix* first = nullptr;  // represents all of them, because they differ only in what is drawn
        std::int64_t used = 0, matrices = 0;
    };
    std::map<std::int64_t, Shape> shapes;  // by number of candidates
    for (const Matrix& matrix : matrices_) {
        Shape& shape = shapes[std::min(matrix.linear->out().size, matrix.linear->in().size)];
        if (shape.matrices++ > 0) continue;
        shape.first = &matrix;
        shape.used = matrix.schedule.candidate_use().candidates;
    }
    std::vector<std::string> lines;
    for (const auto& [candidates, shape] : shapes) {
        if (shape.used == candidates) continue;
        const SwitchSettings s =
            switch_settings(config, shape.first->linear->out().size, shape.first->linear->in().size);
        lines.push_back(fmt::format(
            "the switching schedule uses {} of {} candidates of {} in {} steps ({:.1f} a slot, a lap of the "
            "bank needs {:.1f}), and so in {} of {} matrices (the others never train); lower "
            "method.switch_interval, raise method.switch_ratio or method.rank, or train longer",
            shape.used, candidates, shape.first->linear->name(), s.steps, s.visits_per_slot(),
            static_cast<double>(candidates) / static_cast<double>(s.low_rank), shape.matrices,
            matrices_.size()));
    }
    if (matrices_.size() < adapted_.size())
        lines.push_back(
            fmt::format("{} of {} matrices are not switched (min(out, in) does not exceed method.rank)",
                        adapted_.size() - matrices_.size(), adapted_.size()));
    return lines;
}

}  // namespace

MethodEntry switchlora() {
    using Type = MethodOption::Type;
    const MethodOption interval{.key = "switch_interval",
                                .type = Type::real,
                                .default_value = "40",
                                .unit = "steps",
                                .help = "between switches of a slot at the start",
                                .minimum = 1,
                                .maximum = 1e9};
    const MethodOption ratio{.key = "switch_ratio",
                             .type = Type::real,
                             .default_value = "0.1",
                             .unit = "of run.steps",
                             .help = "after which the frequency has fallen to 0.3",
                             .minimum = 1e-6,
                             .maximum = 1e6};
    const MethodOption freeze{.key = "freeze_steps",
                              .type = Type::integer,
                              .default_value = "5",
                              .unit = "updates",
                              .help = "for which a switched vector's counterpart stays fixed",
                              .minimum = 0,
                              .maximum = 1e6};
    const MethodOption order{.key = "switch_order",
                             .type = Type::text,
                             .default_value = "ring",
                             .help = "which candidate comes next",
                             .choices = {"ring", "random"}};
    const MethodOption bank{.key = "bank_dtype",
                            .type = Type::text,
                            .default_value = "auto",
                            .help = "of inactive candidates; auto: bf16 in bf16 runs",
                            .choices = {"auto", "f32", "bf16"}};
    return {.options = {.name = "switchlora",
                        .help = "low-rank factors whose vectors rotate through a bank of candidates",
                        .options = {rank_option(), alpha_option("1"), strategy_option(), interval, ratio,
                                    freeze, order, bank},
                        .lr = 1e-2},
            .create = [](const Config&) -> std::unique_ptr<Method> { return std::make_unique<SwitchLora>(); },
            .resolve = resolve_low_rank,
            .check = check_low_rank,
            .guide = {.equation = "as lora; slots of A and B rotate through banks, W takes what leaves",
                      .source = "Zhou et al. 2024, arXiv 2406.06564",
                      .use = "pretraining from scratch where memory and network limit",
                      .validated = "a reference of one process over 100 steps in f64 (1e-10)"}};
}

}  // namespace switchyard::methods

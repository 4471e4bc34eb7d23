// SwitchLoRA (arXiv 2406.06564): the vectors of A and B are swapped with candidates of a bank all the time, W
// absorbs the difference, and only the counterpart's optimizer state is reset. Banks and masters are
// distributed by `home`.
#include <algorithm>
#include <array>
#include <deque>
#include <map>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "methods/parts/residual_probe.hpp"
#include "methods/registry.hpp"
#include "methods/switchlora/candidate_bank.hpp"
#include "methods/switchlora/switch_schedule.hpp"

namespace switchyard::methods {
namespace {

/// Elements of one segment of the incoming candidates' all-gather.
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

class SwitchLora : public Method {
  public:
    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) override;
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void allocate(const ModelContext&, Transformer&, Optimizer&) override;
    void initialise(const ModelContext&) override;
    void before_update(Optimizer&, std::int64_t step) override;
    MethodReport after_gather(Optimizer&, std::int64_t step) override;
    void end_step(std::span<const double> scalars, MethodReport&) override;
    void visit_state(StateIo&, Optimizer&) override;
    std::vector<std::string> notes(const Config&) const override;
    std::vector<Traffic> plan_traffic(const Optimizer&, std::int64_t steps) const override;

  private:
    using Switches = std::vector<Switch>;  // one a matrix
    /// Tensors and owners of the incoming candidates of one group, as they travel.
    struct Incoming {
        std::vector<Tensor> tensors;
        std::deque<std::vector<int>> owners;
        std::vector<BucketItem> items;
        std::int64_t capacity = 0;
    };
    Incoming incoming(const Comm& group, const Switches&) const;
    std::vector<RowMove> moves(const Switches&) const;
    void gather_incoming(const Switches&);
    void list_slots(const Switches&);
    void absorb(Matrix&, const Switch&);
    void replace_values(Matrix&, const Switch&);

    std::vector<Matrix> matrices_;
    const Topology* topology_ = nullptr;
    Traffic* traffic_ = nullptr;
    DType accumulate_ = DType::f32;
    Tensor difference_a_, difference_b_, scratch_, gathered_;  // work space, flat
    ResidualProbe probe_;
    kernels::StepLists lists_;
    std::vector<std::array<kernels::Rows, 2>> slots_;  // of the last switch, per matrix and side
    const Matrix* sampled_ = nullptr;                  // whose residual the last step measured
    std::int64_t sampled_terms_ = 0;
};

SwitchSettings switch_settings(const ModelContext& context, const Linear& linear) {
    return switch_settings(context.config, linear.out().size, linear.in().size);
}

std::unique_ptr<Adapter> SwitchLora::attach(const ModelContext& context, Linear& linear) {
    auto adapter = Method::attach(context, linear);
    LowRankAdapter* low_rank_adapter = adapted_.back().adapter;
    const SwitchSettings s = switch_settings(context, linear);
    if (s.low_rank >= s.num_candidates) return adapter;  // nothing to switch to
    const auto bank = [&](int side) {
        Parameter& factor = side == 0 ? low_rank_adapter->a() : low_rank_adapter->b();
        const Comm& group = owner_group(context.topology, factor.tp_gradient);
        const int number = adapted_.back().side_number[side];
        return CandidateBank(factor, group, home_rule(context, number, group, s.low_rank), s.num_candidates);
    };
    Matrix matrix{&linear, low_rank_adapter, SwitchSchedule(s, linear.name()), {bank(0), bank(1)}};
    matrices_.push_back(std::move(matrix));
    return adapter;
}

OwnershipPlan SwitchLora::ownership(const ModelContext& context, const Parameter& parameter) {
    for (const Matrix& matrix : matrices_) {
        for (int side : {0, 1}) {
            const CandidateBank& x = matrix.side[side];
            if (x.factor != &parameter) continue;
            const SwitchSettings s = switch_settings(context, *matrix.linear);
            const std::int64_t ranks = x.group->size(), r = s.low_rank;
            OwnershipPlan plan{slot_owners(*x.group, x.rule, matrix.schedule.candidates(side)), r, true};
            if (ranks > 1 && s.random_order) plan.capacity = std::min<std::int64_t>(r, x.homed.size());
            if (ranks > 1 && !s.random_order) plan.capacity = std::min(r, (r + ranks - 1) / ranks + 1);
            return plan;
        }
    }
    return Method::ownership(context, parameter);
}

DType bank_type(const ModelContext& context) {
    const std::string& bank = option_text(context.config.method, "bank_dtype");
    require(bank != "bf16" || context.dtype == DType::bf16,
            "method.bank_dtype = bf16 in a run of dtype {} (its candidates would lose digits at each switch) "
            "use f32, or "
            "run.dtype = bf16",
            name_of(context.dtype));
    return bank == "f32" || context.dtype != DType::bf16 ? context.accumulate() : DType::bf16;
}

void SwitchLora::allocate(const ModelContext& context, Transformer&, Optimizer& optimizer) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    accumulate_ = context.accumulate();
    if (matrices_.empty()) return;
    Arena& arena = context.arena;
    std::int64_t widest = 0, widest_in = 0, most = 0, scratch_bytes = 0;
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
        const std::int64_t m = matrix.linear->out().padded, n = matrix.linear->in().padded;
        widest_in = std::max(widest_in, n);
        most = std::max(most, at_once);
        scratch_bytes = std::max(
            scratch_bytes, static_cast<std::int64_t>(kernels::frozen_scratch_bytes(m, n, context.dtype)));
    }
    const auto take = [&](DType dtype, std::int64_t size) {
        return arena.take(MemoryClass::workspace, dtype, {size});
    };
    difference_a_ = take(accumulate_, 2 * most * widest);
    difference_b_ = take(accumulate_, 2 * most * widest);
    const Comm& world = topology_->world;
    if (world.size() > 1)
        gathered_ =
            take(context.dtype, std::max(topology_->dp.size() * gather_capacity(topology_->dp, widest),
                                         world.size() * gather_capacity(world, widest)));
    scratch_ = arena.shared(DType::i16, {(scratch_bytes + 1) / 2});
    probe_.allocate(context, optimizer.scalars(), widest_in, low_rank(context));
    std::int64_t lists = 0;
    for (const Matrix& matrix : matrices_)
        lists += 4 * switch_settings(context, *matrix.linear).most_at_once();
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

void SwitchLora::before_update(Optimizer& optimizer, std::int64_t) {
    for (Matrix& matrix : matrices_) {
        for (int side : {0, 1}) {
            optimizer.owned()[matrix.side[side].owned].set_frozen(matrix.schedule.frozen(side));
        }
        matrix.schedule.count_down();
    }
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

void SwitchLora::gather_incoming(const Switches& switches) {
    for (std::size_t i = 0; i < matrices_.size(); ++i)
        for (int side : {0, 1}) {
            const CandidateBank& x = matrices_[i].side[side];
            const SideSwitch& s = side_of(switches[i], side);
            for (std::size_t j = 0; j < s.incoming.size(); ++j)
                if (x.here(s.incoming[j]))
                    kernels::copy(x.vector(s.incoming[j]), x.incoming.rows(static_cast<std::int64_t>(j), 1));
        }
    for (const Comm* group : {&topology_->dp, &topology_->world}) {
        const Incoming all = incoming(*group, switches);
        if (all.tensors.empty()) continue;
        const auto table = std::make_shared<BucketTable>(all.items, group->size(), all.capacity);
        const Tensor rows = lists_.add(table->lists());
        lists_.commit();
        Buckets(table, rows).gather(*group, all.tensors, gathered_, *traffic_, TrafficGroup::candidates);
    }
}

/// W += s [B_I, B_J - B'_J] [A_I - A'_I; A_J] on this rank's rows, from the compute copies.
void SwitchLora::absorb(Matrix& matrix, const Switch& s) {
    const FrozenBase& base = matrix.linear->base();
    const std::int64_t k = s.count(), n = matrix.linear->in().padded;
    const std::int64_t row0 = base.slice.begin, rows = base.slice.local;
    if (rows == 0) return;
    const Tensor a = difference_a_.view(accumulate_, {2 * k, n}),
                 b = difference_b_.view(accumulate_, {2 * k, rows});
    const auto& [side_a, side_b] = matrix.side;
    const auto& slots = slots_[&matrix - matrices_.data()];
    const auto a_rows = [&](int side) { return kernels::whole_rows(side_a.factor->value, slots[side]); };
    const auto b_rows = [&](Tensor of, const kernels::Rows& some) {
        return kernels::RowPart{of, some, row0, rows};
    };
    kernels::RowBatch batch;
    batch.subtract(a_rows(0), kernels::whole_rows(side_a.incoming.rows(0, k)),
                   kernels::whole_rows(a.rows(0, k)));
    batch.copy(a_rows(1), kernels::whole_rows(a.rows(k, k)));
    batch.copy(b_rows(side_b.factor->value, slots[0]), kernels::whole_rows(b.rows(0, k)));
    batch.subtract(b_rows(side_b.factor->value, slots[1]),
                   b_rows(side_b.incoming, kernels::Rows::range(0, k)), kernels::whole_rows(b.rows(k, k)));
    batch.run();
    kernels::add_low_rank(base.local_rows(), {a, b, matrix.adapter->scale()}, scratch_);
}

void SwitchLora::replace_values(Matrix& matrix, const Switch& s) {
    for (int side : {0, 1}) {
        const CandidateBank& x = matrix.side[side];
        kernels::copy_rows(kernels::whole_rows(x.incoming.rows(0, s.count())),
                           kernels::whole_rows(x.factor->value, slots_[&matrix - matrices_.data()][side]));
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
    // The matrix whose residual is measured: another one each step, among those that switch.
    std::size_t sampled = matrices_.size();
    for (std::size_t i = 0; i < matrices_.size() && sampled == matrices_.size(); ++i) {
        const std::size_t candidate = (static_cast<std::size_t>(step) + i) % matrices_.size();
        if (switches[candidate].count() > 0) sampled = candidate;
    }
    sampled_ = nullptr;
    if (sampled == matrices_.size()) return report;
    sampled_ = &matrices_[sampled];
    sampled_terms_ = 2 * switches[sampled].count() + sampled_->adapter->low_rank();

    list_slots(switches);
    gather_incoming(switches);
    probe_.before(*matrices_[sampled].linear, *matrices_[sampled].adapter);
    const auto for_each = [&](const auto& visit) {
        for (std::size_t i = 0; i < matrices_.size(); ++i)
            for (int side : {0, 1}) {
                const SideSwitch& s = side_of(switches[i], side);
                OwnedParameter& owned = optimizer.owned()[matrices_[i].side[side].owned];
                for (std::size_t j = 0; j < s.slots.size(); ++j)
                    visit(matrices_[i].side[side], owned, s.slots[j], s.outgoing[j], s.incoming[j]);
            }
    };
    for (std::size_t i = 0; i < matrices_.size(); ++i)
        if (switches[i].count() > 0) absorb(matrices_[i], switches[i]);
    for_each([](CandidateBank& x, OwnedParameter& owned, std::int32_t slot, int outgoing, int) {
        if (x.here(outgoing)) kernels::copy(owned.master(slot), x.vector(outgoing));
    });
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
        const Switch& s = switches[i];
        if (s.count() == 0) continue;
        replace_values(matrices_[i], s);
        optimizer.owned()[matrices_[i].side[1].owned].reset_moments(s.a.slots);
        optimizer.owned()[matrices_[i].side[0].owned].reset_moments(s.b.slots);
        report.vectors_switched += 2 * s.count();
        report.moments_reset += 2 * s.count();
    }
    optimizer.move_rows(moves(switches));
    for_each([](CandidateBank& x, OwnedParameter& owned, std::int32_t slot, int, int incoming) {
        if (x.here(incoming)) kernels::copy(x.vector(incoming), owned.master(slot));
    });
    probe_.after(*sampled_->linear, *sampled_->adapter);
    report.residual_of = sampled_->linear->name();
    return report;
}

void SwitchLora::end_step(std::span<const double> scalars, MethodReport& report) {
    if (sampled_) report.residual = probe_.judge(scalars, *sampled_->linear, sampled_terms_);
}

void SwitchLora::list_slots(const Switches& switches) {
    lists_.begin();
    slots_.resize(matrices_.size());
    for (std::size_t i = 0; i < matrices_.size(); ++i)
        for (int side : {0, 1}) slots_[i][side] = lists_.rows(side_of(switches[i], side).slots);
    lists_.commit();
}

void SwitchLora::visit_state(StateIo& io, Optimizer& optimizer) {
    Method::visit_state(io, optimizer);
    for (Matrix& matrix : matrices_) {
        std::vector<std::int64_t> tables = matrix.schedule.state();
        io.integers("/method/" + matrix.linear->name() + "/switch", tables, topology_->world.rank());
        if (io.loading()) {
            matrix.schedule.set_state(tables);
            for (int side : {0, 1}) {
                const CandidateBank& x = matrix.side[side];
                optimizer.assign_owners(
                    x.owned, slot_owners(*x.group, x.rule, matrix.schedule.candidates(side)).owner);
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
    SwitchLora future = *this;  // advances only schedules
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
        const Matrix* first = nullptr;  // stands for all: they differ by their draws only
        std::int64_t used = 0, matrices = 0;
    };
    std::map<std::int64_t, Shape> shapes;  // by number of candidates
    for (const Matrix& matrix : matrices_) {
        Shape& shape = shapes[std::min(matrix.linear->out().size, matrix.linear->in().size)];
        if (shape.matrices++ > 0) continue;
        shape.first = &matrix;
        shape.used = matrix.schedule.num_candidates_used();
    }
    std::vector<std::string> lines;
    for (const auto& [candidates, shape] : shapes) {
        if (shape.used == candidates) continue;
        const SwitchSettings s =
            switch_settings(config, shape.first->linear->out().size, shape.first->linear->in().size);
        lines.push_back(fmt::format(
            "the switching schedule uses {} of {} candidates of {} in {} steps ({:.1f} a slot, a lap of the "
            "bank needs {:.1f}), and so in {} of {} matrices (the others never train) lower "
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
    const std::vector<MethodOption> options{
        rank_option(),
        alpha_option("1"),
        {"switch_interval", Type::real, "40", "steps", "between switches of a slot at the start", 1, 1e9, {}},
        {"switch_ratio",
         Type::real,
         "0.1",
         "of run.steps",
         "after which the frequency has fallen to 0.3",
         1e-6,
         1e6,
         {}},
        {"freeze_steps",
         Type::integer,
         "5",
         "updates",
         "for which a switched vector's counterpart stays fixed",
         0,
         1e6,
         {}},
        {"switch_order", Type::text, "ring", "", "which candidate comes next", 0, 0, {"ring", "random"}},
        {"bank_dtype",
         Type::text,
         "auto",
         "",
         "of inactive candidates; auto: bf16 in bf16 runs",
         0,
         0,
         {"auto", "f32", "bf16"}},
    };
    return {{"switchlora", "low-rank factors whose vectors rotate through a bank of candidates", options},
            [](const Config&) -> std::unique_ptr<Method> { return std::make_unique<SwitchLora>(); }};
}

}  // namespace switchyard::methods

// Observer: looks at a run right before and right after each switch and reports everything that differs from
// the algorithm (arXiv 2406.06564, algorithm 1): the function must be kept, the counterpart's state reset,
// the own state kept, frozen slots constant, masters and bank rows swapped.
#pragma once

#include <set>

#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "methods/low_rank_method.hpp"
#include "methods/switchlora/switch_schedule.hpp"
#include "support/hooked_method.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

using test::Values;

inline Values values_of(Tensor t) {
    const test::HostTensor wide(DType::f64, t.shape());
    kernels::copy(t, wide);
    return wide.values();
}

inline double max_abs(const Values& values) {
    double largest = 0;
    for (double x : values) largest = std::max(largest, std::fabs(x));
    return largest;
}

inline double max_difference(const Values& a, const Values& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
    return largest;
}

/// One row of a factor as its owner holds it.
struct RowState {
    Values master, m, v;
    double step = 0;
    bool operator==(const RowState&) const = default;
};

/// All rows of a factor over the ranks of its group, each from its owner, of which there must be exactly one.
inline std::vector<RowState> row_states(const OwnedParameter& owned) {
    const std::size_t width = static_cast<std::size_t>(owned.width()), rows = owned.owners().owner.size();
    const std::size_t stride = 3 * width + 2;
    Values all(rows * stride, 0.0);
    for (std::size_t row = 0; row < rows; ++row) {
        if (!owned.mine(static_cast<std::int32_t>(row))) continue;
        auto out = all.begin() + static_cast<std::ptrdiff_t>(row * stride);
        for (const Tensor& t : {owned.master(row), owned.m(row), owned.v(row)}) {
            const Values values = values_of(t);
            out = std::copy(values.begin(), values.end(), out);
        }
        std::int32_t step = 0;
        kernels::download(owned.step(row), &step);
        *out++ = step;
        *out = 1;  // owners
    }
    const Comm& group = *owned.owners().group;
    SWITCHYARD_MPI(MPI_Allreduce(MPI_IN_PLACE, all.data(), static_cast<int>(all.size()), MPI_DOUBLE, MPI_SUM,
                                 group.handle()));
    std::vector<RowState> states(rows);
    for (std::size_t row = 0; row < rows; ++row) {
        const double* in = all.data() + row * stride;
        states[row] = {Values(in, in + width), Values(in + width, in + 2 * width),
                       Values(in + 2 * width, in + 3 * width), in[3 * width]};
        EXPECT_EQ(in[3 * width + 1], 1) << owned.parameter().shard.name << " row " << row << ": owners";
    }
    return states;
}

/// W + s B A of the rows of the base on this rank, from what is stored.
inline Values effective_weight(const Linear& linear, LowRankAdapter& adapter) {
    const FrozenBase& base = linear.base();
    const test::HostTensor full(accumulate_type(base.words.hi.dtype()), base.words.hi.shape());
    kernels::load_frozen(base.words, full);
    Values w = full.values();
    const Values a = values_of(adapter.a().value), b = values_of(adapter.b().value);
    const std::int64_t n = linear.in().padded, m = linear.out().padded;
    const std::int64_t row0 = base.slice.begin, rows = base.slice.local;
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t slot = 0; slot < adapter.low_rank(); ++slot)
                w[i * n + j] += adapter.scale() * b[slot * m + row0 + i] * a[slot * n + j];
    return w;
}

/// What a run may do to one side of one matrix between two looks.
struct Side {
    OwnedParameter* owned = nullptr;
    Parameter* factor = nullptr;
    std::vector<RowState> before, after;  // the last switch
    std::vector<int> frozen;              // updates that each slot must still stay constant
    std::vector<std::set<int>> owners;    // that each slot has had
    std::map<int, Values> left;           // candidate -> master when it left
    std::set<int> visited;                // candidates
};
struct Observed {
    Linear* linear = nullptr;
    LowRankAdapter* adapter = nullptr;
    SwitchSchedule schedule;  // the same tables as the program's
    Values effective;         // before the switch
    Side side[2];
};

struct Tolerances {
    double weight = 1e-13, output = 1e-13;  // relative to the largest
    bool bank_rounds = false;               // candidates come back in bf16
};

class Observer {
  public:
    Observer(TinyRun& run, Tolerances tolerances) : run_(run), tolerances_(tolerances) {
        for (Linear* linear : state().model.linears()) {
            Observed x;
            x.linear = linear;
            x.adapter = dynamic_cast<LowRankAdapter*>(linear->adapter());
            x.schedule = SwitchSchedule(switch_settings(run.config(), linear->out().size, linear->in().size),
                                        linear->name());
            for (int side : {0, 1}) {
                Side& s = x.side[side];
                s.factor = x.adapter->parameters()[side];
                s.owned = &state().optimizer.owned()[state().optimizer.index_of(s.factor)];
                s.frozen.assign(x.adapter->low_rank(), 0);
                s.owners.resize(x.adapter->low_rank());
                s.after = row_states(*s.owned);
                look_at_owners(x, side);
            }
            all_.push_back(std::move(x));
        }
        auto& hooks = HookedMethod::install(state());
        hooks.before_switch = [this] { before(); };
        hooks.after_switch = [this] { after(); };
    }
    std::vector<Observed>& matrices() { return all_; }
    std::int64_t switches() const { return switches_; }

  private:
    TrainState& state() { return run_.state(); }
    void look_at_owners(Observed& x, int side) {
        Side& s = x.side[side];
        for (std::size_t slot = 0; slot < s.owners.size(); ++slot)
            s.owners[slot].insert(s.owned->owners().owner[slot]);
        s.visited.insert(x.schedule.candidates(side).begin(), x.schedule.candidates(side).end());
    }
    /// Loss on the batch in place, and the logits after its last token.
    Values outputs() {
        state().model.weights_changed();
        state().model.evaluate();
        Values all = values_of(state().model.loss());
        const test::HostTensor logits(state().context.dtype, {1, state().model.vocabulary().padded});
        state().model.next_token_logits(state().context.tokens() - 1, logits);
        const Values values = logits.values();
        all.insert(all.end(), values.begin(), values.end());
        return all;
    }

    /// All ranks hold the updated vectors, nothing is switched yet.
    void before() {
        for (Observed& x : all_) {
            x.effective = effective_weight(*x.linear, *x.adapter);
            x.schedule.count_down();
            for (Side& s : x.side) {
                s.before = row_states(*s.owned);
                expect_only_free_slots_moved(s);
            }
        }
        outputs_ = outputs();
    }
    void expect_only_free_slots_moved(Side& s) {
        for (std::size_t slot = 0; slot < s.frozen.size(); ++slot) {
            EXPECT_EQ(s.before[slot].master == s.after[slot].master,
                      s.frozen[slot] > 0 || s.factor->shard.empty())
                << s.factor->shard.name << " slot " << slot << ", step " << state().step << ", frozen for "
                << s.frozen[slot] << " more updates";
            s.frozen[slot] -= s.frozen[slot] > 0;
        }
    }

    void after() {
        const Values outputs_now = outputs();
        EXPECT_NEAR(outputs_now[0], outputs_[0], tolerances_.output * std::fabs(outputs_[0])) << "loss";
        EXPECT_LE(max_difference(outputs_now, outputs_), tolerances_.output * max_abs(outputs_)) << "logits";
        for (Observed& x : all_) {
            EXPECT_LE(max_difference(effective_weight(*x.linear, *x.adapter), x.effective),
                      tolerances_.weight * max_abs(x.effective))
                << x.linear->name();
            const Switch s = x.schedule.advance(state().step);
            switches_ += s.count();
            expect_states(x, 0, s.a, s.b);
            expect_states(x, 1, s.b, s.a);
        }
    }
    /// `own`: slots whose vectors were replaced; `other`: slots whose counterparts were.
    void expect_states(Observed& x, int side, const SideSwitch& own, const SideSwitch& other) {
        Side& s = x.side[side];
        std::vector<RowState> expected = s.before;
        for (const std::int32_t slot : other.slots) {
            expected[slot].m.assign(s.owned->width(), 0.0);
            expected[slot].v = expected[slot].m;
            expected[slot].step = 0;
            s.frozen[slot] = static_cast<int>(option_integer(run_.config().method, "freeze_steps"));
        }
        const std::vector<RowState> now = row_states(*s.owned);
        for (std::size_t i = 0; i < own.slots.size(); ++i) {
            const std::int32_t slot = own.slots[i];
            s.left[own.outgoing[i]] = s.before[slot].master;
            const auto known = s.left.find(own.incoming[i]);
            expected[slot].master = known == s.left.end() ? now[slot].master : as_banked(known->second);
            EXPECT_EQ(now[slot].master == s.before[slot].master, s.factor->shard.empty())
                << s.factor->shard.name << " slot " << slot;
        }
        for (std::size_t slot = 0; slot < now.size(); ++slot)
            EXPECT_TRUE(now[slot] == expected[slot])
                << s.factor->shard.name << " slot " << slot << ", step " << state().step << ", switched "
                << std::count(own.slots.begin(), own.slots.end(), slot) << ", counterpart switched "
                << std::count(other.slots.begin(), other.slots.end(), slot);
        s.after = now;
        Values masters;
        for (const RowState& row : now) masters.insert(masters.end(), row.master.begin(), row.master.end());
        const test::HostTensor rounded(s.factor->value.dtype(), s.factor->value.shape(), masters);
        EXPECT_EQ(rounded.values(), values_of(s.factor->value))
            << s.factor->shard.name << ": rounded masters";
        look_at_owners(x, side);
    }
    Values as_banked(const Values& master) const {
        if (!tolerances_.bank_rounds) return master;
        return test::HostTensor(DType::bf16, {static_cast<std::int64_t>(master.size())}, master).values();
    }

    TinyRun& run_;
    Tolerances tolerances_;
    std::vector<Observed> all_;
    Values outputs_;
    std::int64_t switches_ = 0;
};

}  // namespace switchyard::testing

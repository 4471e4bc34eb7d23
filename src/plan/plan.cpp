// All numbers come from the objects that a run would build.
#include "plan/plan.hpp"

#include <algorithm>
#include <set>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "train/batch_source.hpp"

namespace switchyard {
namespace {

/// The state as one rank of an imaginary job builds it; all data are null.
struct ImaginaryState {
    ImaginaryState(const Config& config, int ranks, int rank)
        : topology(Topology::imaginary(ranks, config.parallel.tp, rank)),
          state(config, topology, arena, traffic) {}
    Topology topology;
    Arena arena;
    Traffic traffic;
    TrainState state;
};

std::int64_t micro_batches(const Config& config, const Topology& topology) {
    return config.data.global_batch / (topology.dp_size() * config.data.micro_batch);
}

RankPlan plan_rank(ImaginaryState& x, std::int64_t steps) {
    RankPlan plan;
    plan.memory = memory_of(x.arena);
    const Config& config = x.state.context.config;
    const std::int64_t passes_a_step = micro_batches(config, x.topology);
    Traffic passes = x.state.model.plan_traffic(passes_a_step);
    passes.add(TrafficGroup::batches, static_cast<double>(passes_a_step) * bytes_of_batch(x.state.context));
    plan.steps = x.state.method->plan_traffic(x.state.optimizer, steps);
    for (Traffic& step : plan.steps)
        for (int g = 0; g < num_traffic_groups; ++g) step.bytes[g] += passes.bytes[g];
    return plan;
}

std::set<int> ranks_to_look_at(int ranks, int tp, int rank) {
    std::set<int> chosen{rank};
    for (int r = 0; r < ranks; ++r)
        if (ranks <= 16 || r < tp || r >= ranks - tp) chosen.insert(r);
    return chosen;
}

}  // namespace

double MemoryUse::total() const {
    double sum = 0;
    for (double b : bytes) sum += b;
    return sum;
}

MemoryUse memory_of(const Arena& arena) {
    MemoryUse use;
    for (int c = 0; c < num_memory_classes; ++c)
        use.bytes[c] = static_cast<double>(arena.bytes(static_cast<MemoryClass>(c)));
    const double shared = static_cast<double>(arena.total_bytes()) - use.total();
    use.bytes[static_cast<int>(MemoryClass::workspace)] += shared;
    return use;
}

Traffic RankPlan::mean() const {
    Traffic mean;
    for (const Traffic& step : steps)
        for (int g = 0; g < num_traffic_groups; ++g)
            mean.bytes[g] += step.bytes[g] / static_cast<double>(steps.size());
    return mean;
}

double total_bytes(const Traffic& traffic) {
    double sum = 0;
    for (double b : traffic.bytes) sum += b;
    return sum;
}

ParameterCounts count_parameters(TrainState& state) {
    ParameterCounts counts;
    const auto count = [&](ParameterRole role) -> std::int64_t& {
        switch (role) {
            case ParameterRole::embedding:
                return counts.embedding;
            case ParameterRole::head:
                return counts.head;
            case ParameterRole::norm:
                return counts.norms;
            case ParameterRole::weight:
                return counts.dense_linears;
            case ParameterRole::factor:
                break;
        }
        return counts.factors;
    };
    for (const Parameter* p : state.model.parameters())
        if (p->stored) count(p->role) += p->shard.global.size();
    for (const Linear* linear : state.model.linears()) {
        if (!linear->frozen()) continue;
        // A base that absorbs directions is trained.
        const std::vector<Parameter*> parameters = linear->adapter()->parameters();
        const bool trained =
            std::any_of(parameters.begin(), parameters.end(), [](const Parameter* p) { return !p->stored; });
        (trained ? counts.dense_linears : counts.frozen) += linear->out().size * linear->in().size;
    }
    return counts;
}

FlopsModel flops_model(TrainState& state) {
    const Config& config = state.context.config;
    const ModelConfig& m = config.model;
    const Topology& topology = state.context.topology;
    const bool sharded = config.parallel.shard_frozen && topology.dp_size() > 1;
    const auto layers = static_cast<double>(m.num_layers);
    // Kept copies: each dp rank forms one per step. Sharded: the slices together form one copy per gather.
    const double merges = sharded ? static_cast<double>(WeightStage::gathers_per_step(
                                        m.num_layers, micro_batches(config, topology))) /
                                        layers
                                  : topology.dp_size();
    FlopsModel model;
    for (const Linear* linear : state.model.linears()) {
        const double weights =
            static_cast<double>(linear->out().size) * static_cast<double>(linear->in().size);
        const bool merged = linear->frozen() && linear->adapter()->merged();
        model.linears.push_back({weights, linear->cost(), linear->recomputed(), merged ? merges : 0});
    }
    if (Shadow* shadow = state.model.shadow())
        for (const Linear* linear : shadow->linears())
            model.linears.push_back({0, linear->cost(), linear->recomputed(), 0});
    model.num_layers = layers;
    model.attention_width = static_cast<double>(m.hidden_size);
    model.hidden_size = static_cast<double>(m.hidden_size);
    model.vocab_size = static_cast<double>(m.vocab_size);
    model.seq_len = static_cast<double>(config.data.seq_len);
    model.recomputed_layers = m.recompute ? layers - 1 : 0;
    if (state.model.shadow()) model.shadow_layers = layers + model.recomputed_layers;
    model.tokens_per_step = static_cast<double>(config.data.global_batch * config.data.seq_len);
    model.update = state.method->update_operations();
    return model;
}

Plan make_plan(const Config& config, int ranks, int rank, std::int64_t steps) {
    Plan plan;
    const std::set<int> chosen = ranks_to_look_at(ranks, config.parallel.tp, rank);
    for (int r : chosen) {
        ImaginaryState x(config, ranks, r);
        const MemoryUse memory = memory_of(x.arena);
        if (memory.total() > plan.largest_memory.total()) plan.largest_memory = memory;
        if (r != rank) continue;
        plan.ranks = ranks;
        plan.dp = x.topology.dp_size();
        plan.tp = x.topology.tp_size();
        plan.parameters = count_parameters(x.state);
        const FlopsModel model = flops_model(x.state);
        for (const Linear* linear : x.state.model.linears())
            if (linear->frozen() && linear->adapter()->effective_weight())
                ++(linear->adapter()->merged() ? plan.merged_linears : plan.unmerged_linears);
        plan.flops_per_token = flops_per_token(model);
        plan.tokens_per_step = model.tokens_per_step;
        plan.checkpoint_bytes = checkpoint_bytes(x.state);
        plan.notes = x.state.method->notes(config);
        for (const std::string& note : x.state.optimizer.notes()) plan.notes.push_back(note);
        plan.rank = plan_rank(x, steps);
    }
    plan.pinned_bytes = static_cast<double>(backend::pinned_bytes(ranks));
    plan.ranks_looked_at = static_cast<int>(chosen.size());
    return plan;
}

}  // namespace switchyard

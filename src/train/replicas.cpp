// Every copy is compared with that of the first rank of its group. If all equal the first one, all are equal.
#include "train/replicas.hpp"

#include <cstring>

#include "core/error.hpp"
#include "core/host.hpp"
#include "kernels/hash.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

using Hashes = std::vector<std::uint64_t>;

Tensor room_for_hashes(TrainState& state, std::size_t count) {
    return state.context.arena.shared(DType::i64, {static_cast<std::int64_t>(count)});
}

Hashes hashes_of(TrainState& state, const std::vector<Replica>& all) {
    std::vector<Tensor> tensors;
    for (const Replica& replica : all) tensors.push_back(replica.tensor);
    const Tensor hashes = room_for_hashes(state, all.size());
    kernels::hash_bits(tensors, hashes);
    Hashes result(all.size());
    kernels::download(hashes, result.data());
    return result;
}

/// The hashes of the first rank of the group. Collective over the group.
Hashes of_first(const Comm& group, const Hashes& mine) {
    const std::size_t bytes = mine.size() * sizeof(std::uint64_t);
    const std::string sent = broadcast(group, std::string(reinterpret_cast<const char*>(mine.data()), bytes));
    Hashes first(mine.size());
    std::memcpy(first.data(), sent.data(), bytes);
    return first;
}

}  // namespace

std::vector<Replica> replicas(TrainState& state) {
    const Topology& topology = state.context.topology;
    std::vector<Replica> all;
    for (const Linear* linear : state.model.linears()) {
        if (!linear->frozen() || topology.dp_size() == 1) continue;
        const FrozenBase& base = linear->base();
        if (base.slice.kept < linear->out().padded) continue;  // each dp rank has other rows: no copies
        all.push_back({"frozen " + linear->shard().name, base.words.hi});
        if (!base.words.lo.empty())
            all.push_back({"low words of frozen " + linear->shard().name, base.words.lo});
    }
    const auto add = [&](const std::string& name, const Parameter& p) {
        const bool over_tp = p.tp_gradient != TpGradient::own && topology.tp_size() > 1;
        if (topology.dp_size() > 1 || over_tp) all.push_back({name, p.value, over_tp});
    };
    for (const Parameter* p : state.model.parameters()) add(p->shard.name, *p);
    if (Shadow* shadow = state.model.shadow())
        for (const Parameter* p : shadow->copies()) add("the teacher's " + p->shard.name, *p);
    return all;
}

void reserve_replica_hashes(TrainState& state) {
    if (const std::size_t count = replicas(state).size()) room_for_hashes(state, count);
}

void compare_replicas(TrainState& state) {
    const std::vector<Replica> all = replicas(state);
    if (all.empty()) return;
    const Topology& topology = state.context.topology;
    const Hashes mine = hashes_of(state, all);
    const Hashes over_dp = of_first(topology.dp, mine), over_tp = of_first(topology.tp, mine);
    std::size_t i = 0;
    bool differs = false, from_dp = false;
    for (; i < all.size() && !differs; ++i) {
        from_dp = mine[i] != over_dp[i];
        differs = from_dp || (all[i].over_tp && mine[i] != over_tp[i]);
    }
    const Comm& world = topology.world;
    const auto num_differing = static_cast<int>(all_reduce_sum(world, differs));
    if (num_differing == 0) return;
    const auto speaker = static_cast<int>(all_reduce_min(world, differs ? world.rank() : world.size()));
    const std::string dp_host = broadcast(topology.dp, host_name()),
                      tp_host = broadcast(topology.tp, host_name());
    std::string text;
    if (differs)
        text = fmt::format(
            "step {}: {} on rank {} ({}) is not what rank {} ({}) has; so it is on {} of {} ranks (copies of "
            "a weight must be the same to the bit: memory, a processor or the network may be faulty); start "
            "again from the last checkpoint, without the host if it happens there twice",
            state.step, all[i - 1].name, world.rank(), host_name(),
            from_dp ? topology.tp_rank() : topology.dp_rank() * topology.tp_size(),
            from_dp ? dp_host : tp_host, num_differing, world.size());
    throw AgreedError(broadcast(world, text, speaker));
}

}  // namespace switchyard

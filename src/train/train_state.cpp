// Building, initialising, saving and loading.
#include "train/train_state.hpp"

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "train/replicas.hpp"
#include "train/stored_linear.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {

TrainState::TrainState(const Config& config, const Topology& topology, Arena& arena, Traffic& traffic)
    : ModelState(config, topology, arena, traffic),
      optimizer(context, model.parameters(),
                [&](const Parameter& parameter) { return method->ownership(context, parameter); }),
      loss_slot(optimizer.scalars().take()),
      loss_of_ranks(arena, topology.dp, 1) {
    method->allocate(context, model, optimizer);
    reserve_replica_hashes(*this);
}

void TrainState::initialise() {
    model.initialise(context);
    method->initialise(context);
    optimizer.masters_from_values();
    step = 0;
    weights_changed();
}

void TrainState::visit(StateIo& io, const CheckpointReader::Progress& progress) {
    if (io.loading()) method->visit_state(io, optimizer);
    optimizer.visit_state(io);
    visit_frozen_weights(io);
    method->visit_function(io);
    if (!io.loading()) return method->visit_state(io, optimizer);
    io.complete(progress);
    optimizer.values_from_masters();
    model.prepare(context);
    weights_changed();
}

void TrainState::visit_frozen_weights(StateIo& io) {
    for (Linear* linear : model.linears())
        if (linear->frozen()) {
            linear->visit_base(io, context);
            describe_linear(io, *linear, context.topology);
        }
}

void TrainState::initialise_from(const CheckpointReader& reader, const CheckpointReader::Progress& progress) {
    agree_on(context.topology.world, [&] {
        if (context.topology.world.rank() != 0) return;
        std::set<std::string> weights;
        for (const Linear* linear : model.linears()) weights.insert(linear->shard().name);
        for (const Parameter* p : model.parameters())
            if (p->shard.name.ends_with(".weight")) weights.insert(p->shard.name);
        require_understood(reader, weights);
        for (const Linear* linear : model.linears())
            require(!stored_linear(reader, linear->name()).bias,
                    "checkpoint `{}` has a bias of {} (this model has no place for it, and without it would "
                    "compute something else); train with linears without biases for weights to start from",
                    reader.path(), linear->name());
    });
    const WeightReader weights(context, reader, progress);
    for (Linear* linear : model.linears())
        if (linear->frozen()) weights.frozen_base(*linear, true);
    method->initialise(context);  // sets the factors; a product that they add is subtracted from the base
    optimizer.masters_from_values();
    for (OwnedParameter& owned : optimizer.owned())
        if (owned.parameter().shard.name.ends_with(".weight")) read_dense(weights, owned);
    weights.finish();
    model.prepare(context);
    step = 0;
    weights_changed();
}

/// Sets values and masters, both from the same full-precision numbers.
void TrainState::read_dense(const WeightReader& weights, OwnedParameter& owned) {
    Parameter& p = owned.parameter();
    Tensor full;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { full = a.take(MemoryClass::workspace, context.accumulate(), p.value.shape()); });
    weights.parameter(p, full);
    kernels::copy(full, p.value);
    const Tensor rows = full.reshape({full.size() / owned.width(), owned.width()});
    for (std::int32_t row = 0; row < static_cast<std::int32_t>(rows.dim(0)); ++row)
        if (owned.mine(row)) kernels::copy(rows.rows(row, 1), owned.master(row));
}

std::uint64_t checkpoint_bytes(TrainState& state) {
    std::uint64_t bytes = 0;
    StateIo counter(bytes);
    state.visit(counter);
    return bytes;
}

}  // namespace switchyard

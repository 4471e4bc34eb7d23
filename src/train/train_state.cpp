// Building, initialising, saving and loading.
#include "train/train_state.hpp"

#include "core/error.hpp"

namespace switchyard {

TrainState::TrainState(const Config& config, const Topology& topology, Arena& arena, Traffic& traffic)
    : context{config,
              topology,
              arena,
              traffic,
              dtype_from_name(config.run.dtype),
              config.data.micro_batch,
              config.data.seq_len},
      method(make_method(config)),
      model(context),
      optimizer([&]() -> Optimizer {
          model.allocate(context, [&](Linear& linear) { return method->attach(context, linear); });
          return Optimizer(context, model.parameters(),
                           [&](const Parameter& parameter) { return method->ownership(context, parameter); });
      }()) {
    method->allocate(context, model, optimizer);
}

void TrainState::initialise() {
    model.initialise(context);
    method->initialise(context);
    optimizer.masters_from_values();
    model.weights_changed();
    step = 0;
}

void TrainState::visit(StateIo& io) {
    if (io.loading()) method->visit_state(io, optimizer);
    optimizer.visit_state(io);
    visit_frozen_weights(io);
    if (!io.loading()) return method->visit_state(io, optimizer);
    optimizer.values_from_masters();
    model.prepare(context);
    model.weights_changed();
}

void TrainState::visit_frozen_weights(StateIo& io) {
    for (Linear* linear : model.linears())
        if (linear->frozen()) linear->visit_base(io, context);
}

std::unique_ptr<AllocatedState> allocate_state(const Config& config, const Topology& topology,
                                               Traffic& traffic) {
    Arena measured;
    { TrainState shapes(config, topology, measured, traffic); }
    auto result = std::make_unique<AllocatedState>();
    agree_on(topology.world, [&] { result->arena = Arena::allocate(measured); });
    result->state = std::make_unique<TrainState>(config, topology, result->arena, traffic);
    return result;
}

}  // namespace switchyard

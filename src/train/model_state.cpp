// Values that the method derives are computed first, because merged copies depend on them.
#include "train/model_state.hpp"

namespace switchyard {

ModelState::ModelState(const Config& config, const Topology& topology, Arena& arena, Traffic& traffic)
    : context{config,
              topology,
              arena,
              traffic,
              dtype_from_name(config.run.dtype),
              config.data.micro_batch,
              config.data.seq_len},
      workspace(arena),
      method(make_method(config)),
      model(context) {
    model.allocate(context, [&](LinearGroup& group) { return method->attach_group(context, group); });
}

void ModelState::weights_changed() {
    method->weights_changed(context, step);
    model.weights_changed();
}

}  // namespace switchyard

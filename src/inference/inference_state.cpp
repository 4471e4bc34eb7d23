// Built twice, like a state for training: measuring, then real.
#include "inference/inference_state.hpp"

#include "train/node_memory.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {

std::vector<Shard> whole_weights(const ModelConfig& model) {
    const std::string method = method_of_whole_weights();
    Config config = parse_config("", "", {"--method.name=" + method}, method_options()).config;
    config.model = model;
    config.data.seq_len = config.data.micro_batch = 1;
    const Topology alone = Topology::imaginary(1, 1, 0);
    Arena measured;
    Traffic traffic;
    InferenceState shapes(config, alone, measured, traffic);
    std::vector<Shard> all;
    for (const Parameter* p : shapes.model.parameters()) all.push_back(p->shard);
    return all;
}

InferenceState::InferenceState(const Config& config, const Topology& topology, Arena& arena, Traffic& traffic)
    : context{config,
              topology,
              arena,
              traffic,
              dtype_from_name(config.run.dtype),
              config.data.micro_batch,
              config.data.seq_len},
      method(make_method(config)),
      model(context) {
    model.allocate(context, [&](Linear& linear) { return method->attach(context, linear); });
}

void InferenceState::load(const CheckpointReader& reader) {
    const WeightReader weights(context, reader);
    for (Linear* linear : model.linears())
        if (linear->frozen()) weights.frozen_base(*linear, false);
    for (Parameter* p : model.parameters()) weights.parameter(*p);
    model.prepare(context);
    model.weights_changed();
}

std::unique_ptr<AllocatedInference> allocate_inference(const Config& config, const Topology& topology,
                                                       Traffic& traffic) {
    Arena measured;
    { InferenceState shapes(config, topology, measured, traffic); }
    auto result = std::make_unique<AllocatedInference>();
    result->arena = allocate_arena(topology, measured);
    result->state = std::make_unique<InferenceState>(config, topology, result->arena, traffic);
    return result;
}

}  // namespace switchyard

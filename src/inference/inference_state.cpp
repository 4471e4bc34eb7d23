// Values are read rounded to the compute type, as products use them.
#include "inference/inference_state.hpp"

#include "train/checkpoint_header.hpp"
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

void InferenceState::load(const CheckpointReader& reader) {
    const WeightReader weights(context, reader);
    for (Linear* linear : model.linears())
        if (linear->frozen()) weights.frozen_base(*linear, false);
    for (Parameter* p : model.parameters())
        if (p->stored) weights.parameter(*p);
    StateIo io(reader);
    method->visit_function(io);
    io.complete();
    model.prepare(context);
    step = reader.integer("/", "step", 0, last_possible_step);
    weights_changed();
}

}  // namespace switchyard

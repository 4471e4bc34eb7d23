// A tiny run without files: configuration by keys, synthetic tokens from Philox, a state over its own arena.
#pragma once

#include <mpi.h>

#include <string>
#include <vector>

#include "config/option_table.hpp"
#include "core/processor.hpp"
#include "core/rng.hpp"
#include "methods/registry.hpp"
#include "train/train_step.hpp"

namespace switchyard::testing {

/// The micro-batch that leaves a rank two passes of a step, or three: enough to accumulate.
inline std::int64_t micro_batch_of_few_passes(std::int64_t global_batch, int dp_size) {
    const std::int64_t per_rank = global_batch / dp_size;
    return per_rank % 2 == 0 ? per_rank / 2 : 1;
}

/// The test model of design section 11 (12 heads, 12 key-value heads, global batch 12), with sizes that ranks
/// do not divide. As many sequences at a time as leave each layout of these ranks two passes at least. On a
/// GPU no more heads than these ranks can share: emulated, attention takes most of the time.
inline Config tiny_config(const std::vector<std::string>& arguments) {
    int has_ranks = 0, ranks = 1;
    MPI_Initialized(&has_ranks);
    if (has_ranks) MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const std::string heads = !backend::processor().is_gpu ? "12" : ranks % 3 == 0 ? "3" : "4";
    std::vector<std::string> all{
        "--model.preset=nano",     "--model.hidden_size=24",  "--model.num_heads=" + heads,
        "--model.num_layers=2",    "--model.ffn_size=37",     "--model.num_kv_heads=" + heads,
        "--model.vocab_size=53",   "--data.seq_len=8",        "--data.global_batch=12",
        "--data.tokens=synthetic", "--run.dtype=f64",         "--run.steps=20",
        "--optim.warmup_steps=4",  "--optim.lr=0.01",         "--optim.dense_lr=0",
        "--optim.clip_norm=0.5",   "--optim.weight_decay=0.1"};
    all.push_back("--data.micro_batch=" + std::to_string(micro_batch_of_few_passes(12, ranks)));
    all.insert(all.end(), arguments.begin(), arguments.end());
    Config config = parse_config("", "", all, method_options()).config;
    resolve_auto(config);
    return config;
}

/// Sample i: seq_len + 1 tokens drawn for it, skewed so that there is something to learn. With
/// data.mask_documents a new document starts at a drawn position of each sample.
inline BatchSource synthetic_tokens(const Config& config, std::uint64_t seed = 7) {
    return [&config, seed](std::int64_t first, std::int64_t count, Batch& batch) {
        const std::int64_t t = config.data.seq_len;
        batch.num_sequences = count;
        batch.seq_len = t;
        batch.tokens.resize(count * t);
        batch.targets.resize(count * t);
        const std::uint64_t key = stream_key(seed, "synthetic tokens");
        const auto token = [&](std::int64_t sample, std::int64_t position) {
            const double u = uniform(key, sample * (t + 1) + position);
            return static_cast<std::int32_t>(u * u * static_cast<double>(config.model.vocab_size));
        };
        if (config.data.mask_documents) batch.first_key.resize(count * t);
        for (std::int64_t b = 0; b < count; ++b) {
            const auto start = static_cast<std::int32_t>(uniform_below(key, first + b, t));
            for (std::int64_t i = 0; i < t; ++i) {
                batch.tokens[b * t + i] = token(first + b, i);
                batch.targets[b * t + i] = token(first + b, i + 1);
                if (config.data.mask_documents) batch.first_key[b * t + i] = i < start ? 0 : start;
            }
        }
    };
}

/// A run on `topology`, initialised.
class TinyRun {
  public:
    TinyRun(const Config& config, const Topology& topology)
        : config_(config),
          topology_(topology),
          allocated_(allocate_state(config_, topology_, traffic_)),
          source_(synthetic_tokens(config_)) {
        validate(config_, topology.world.size());
        state().initialise();
    }
    TrainState& state() { return *allocated_->state; }
    const Config& config() const { return config_; }
    Traffic& traffic() { return traffic_; }
    StepResult step() { return train_step(state(), source_, timer_); }
    std::vector<double> losses(int steps) {
        std::vector<double> all;
        for (int i = 0; i < steps; ++i) all.push_back(step().loss);
        return all;
    }

  private:
    Config config_;
    const Topology& topology_;
    Traffic traffic_;
    std::unique_ptr<AllocatedState> allocated_;
    BatchSource source_;
    PhaseTimer timer_;
};

}  // namespace switchyard::testing

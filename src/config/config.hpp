// Config: the values of a run, initialised with their defaults. Keys, units and help texts are in keys.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/tensor.hpp"

namespace switchyard {

struct ModelConfig {
    std::string preset = "nano";
    std::int64_t vocab_size = 0;  // 0: that of the token file
    std::int64_t hidden_size = 0, num_layers = 0, num_heads = 0, num_kv_heads = 0,
                 ffn_size = 0;  // 0: that of the preset
    bool tie_embeddings = false;
    bool recompute = false;
    double rope_theta = 10000.0;
    double norm_eps = 1e-6;
    double init_std = 0.02;

    /// Width of keys and of values.
    std::int64_t kv_size() const { return hidden_size / num_heads * num_kv_heads; }
};

struct MethodConfig {
    std::string name = "switchlora";
    /// The keys that the method declares beside its code ("rank", "alpha", "switch_interval", ...), as text,
    /// after validation.
    std::map<std::string, std::string> options;
};

struct ParallelConfig {
    int tp = 1;
    bool shard_frozen = false;
    bool rotate = true;
    std::string collectives = "auto";  // auto, nccl, mpi, staged
    std::string sum_order = "rank";    // rank, library
};

struct KernelsConfig {
    std::string attention = "auto";  // auto, own, cudnn
};

struct DataConfig {
    std::string tokens;
    std::int64_t seq_len = 256;
    std::int64_t micro_batch = 4;
    std::int64_t global_batch = 16;
    bool mask_documents = false;
};

/// Stands for `auto` in numbers that are never negative: the method chooses the value (resolve_auto in
/// methods/registry.hpp).
constexpr double auto_value = -1;

struct OptimConfig {
    double lr = auto_value;
    double dense_lr = auto_value;  // 0: the same as lr
    std::string schedule = "cosine";
    std::int64_t warmup_steps = 100;
    double min_lr_ratio = 0.1;
    double decay_ratio = 0.1;  // wsd: share of the steps in the final decay
    double weight_decay = 0;
    bool decay_norms = false;  // false: decay matrices only
    double clip_norm = 1.0;    // 0: no clipping
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    std::string gradient_dtype = "f32";
    std::string state_bits = "32";      // of a moment: 32, 8
    std::int64_t min_8bit_size = 4096;  // elements of a tensor
};

struct RunConfig {
    std::string dir = "runs/run";
    std::int64_t steps = 1000;
    std::int64_t stop_step = 0;  // 0: the same as steps
    std::uint64_t seed = 0;
    std::string dtype = "bf16";
    std::int64_t log_interval = 10, eval_interval = 0, save_interval = 0;
    std::int64_t keep_last = 2, keep_every = 0;
    bool async_save = true;
    double wall_limit = 0;               // s; 0: none
    double signal_lead = 0;              // s; 0: not known
    double hang_timeout = 600;           // s; 0: no watchdog
    double peak_flops = 0;               // FLOP/s of a rank that utilisation refers to; 0: measured
    std::int64_t check_replicas = 1000;  // steps between comparisons of replicas; 0: never
    std::string trace_steps;             // "first:last", for a profiler
    std::string init_from;
    std::string init_state = "weights";  // weights, all

    std::int64_t last_step() const { return stop_step > 0 ? stop_step : steps; }
};

struct IoConfig {
    std::int64_t window = 4 << 20;  // bytes
};

struct Config {
    ModelConfig model;
    MethodConfig method;
    ParallelConfig parallel;
    KernelsConfig kernels;
    DataConfig data;
    OptimConfig optim;
    RunConfig run;
    IoConfig io;
};

}  // namespace switchyard

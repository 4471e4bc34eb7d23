// The table of keys. Ranges here concern one value alone; conditions between keys are in validate.cpp.
#include "config/keys.hpp"

#include "config/presets.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

using Type = ValueRule::Type;

constexpr double max_count = 9007199254740992.0;  // 2^53: exact as a double
constexpr double max_ranks = 1 << 24;
constexpr double max_width = 1 << 22, max_layers = 1 << 12, max_vocab = largest_vocabulary;
constexpr double max_tokens = 1 << 24, max_sequences = 1 << 30;
constexpr double least_window = 4 << 10, largest_window = 1 << 30;
constexpr bool on_resume = true;

ValueRule integer(double minimum, double maximum = max_count) {
    return {Type::integer, minimum, maximum};
}
ValueRule any_seed() {
    return {Type::integer, 0};
}
ValueRule real(double minimum, double maximum = 1e300) {
    return {Type::real, minimum, maximum};
}
ValueRule above(double minimum) {
    return {Type::real, minimum, 1e300, true};
}
/// A learning rate: a number, or `auto` for the method's choice.
ValueRule rate() {
    return {.type = Type::real, .minimum = 0, .accepts_auto = true};
}
ValueRule duration() {
    return {.type = Type::real, .minimum = 0, .is_duration = true};
}
ValueRule boolean() {
    return {Type::boolean};
}
ValueRule text() {
    return {};
}
ValueRule one_of(std::vector<std::string> choices) {
    return {.choices = std::move(choices)};
}

std::string value_text(const std::string& value) {
    return value;
}
std::string value_text(double value) {
    return value == auto_value ? "auto" : canonical_text(value);  // auto_value is the only negative value
}
std::string value_text(bool value) {
    return value ? "true" : "false";
}
template <class T>
std::string value_text(T value) {
    return fmt::format("{}", value);
}

void read(const std::string& text, std::string& value) {
    value = text;
}
void read(const std::string& text, bool& value) {
    value = text == "true";
}
void read(const std::string& text, int& value) {
    std::int64_t number = 0;
    read_number(text, number);
    value = static_cast<int>(number);
}
void read(const std::string& text, double& value) {
    if (text == "auto")
        value = auto_value;
    else
        read_number(text, value);
}
template <class T>
void read(const std::string& text, T& value) {
    read_number(text, value);
}

struct Description {
    std::string unit, help;
    bool may_change_on_resume = false;
    std::string absent_means{};
};

/// The key for the member config.*section.*member.
template <class Section, class Member>
Key key(const char* name, Section Config::*section, Member Section::*member, ValueRule rule,
        Description about) {
    return {name,
            std::move(rule),
            about.unit,
            about.help,
            about.may_change_on_resume,
            about.absent_means,
            [=](const Config& config) { return value_text(config.*section.*member); },
            [=](Config& config, const std::string& text) { read(text, config.*section.*member); }};
}

void add_model_keys(std::vector<Key>& keys) {
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::model, member, std::move(rule), std::move(about)));
    };
    using M = ModelConfig;
    add("model.preset", &M::preset, text(), {"", "sizes by name: " + preset_names()});
    add("model.vocab_size", &M::vocab_size, integer(0, max_vocab),
        {"", "tokens in the vocabulary; 0: the token file's"});
    add("model.hidden_size", &M::hidden_size, integer(0, max_width),
        {"", "width of the residual stream; 0: the preset's"});
    add("model.num_layers", &M::num_layers, integer(0, max_layers),
        {"", "transformer blocks; 0: the preset's"});
    add("model.num_heads", &M::num_heads, integer(0, max_width), {"", "attention heads; 0: the preset's"});
    add("model.num_kv_heads", &M::num_kv_heads, integer(0, max_width),
        {"", "heads of keys and values; 0: num_heads"});
    add("model.ffn_size", &M::ffn_size, integer(0, max_width),
        {"", "width of the feed-forward layer; 0: the preset's"});
    add("model.tie_embeddings", &M::tie_embeddings, boolean(), {"", "one matrix for embedding and head"});
    add("model.recompute", &M::recompute, boolean(),
        {"", "recompute each block's activations in its backward: less memory, a third more work",
         on_resume});
    add("model.rope_theta", &M::rope_theta, above(0), {"", "base of the rotary position angles"});
    add("model.norm_eps", &M::norm_eps, above(0), {"", "added to the mean square in RMSNorm"});
    add("model.init_std", &M::init_std, real(0), {"", "standard deviation of the initial dense weights"});
}

void add_method_and_parallel_keys(std::vector<Key>& keys) {
    keys.push_back(key("method.name", &Config::method, &MethodConfig::name, text(), {"", "training method"}));
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::parallel, member, std::move(rule), std::move(about)));
    };
    using P = ParallelConfig;
    add("parallel.tp", &P::tp, integer(1, max_ranks),
        {"ranks", "size of a tensor-parallel group; dp = ranks / tp", on_resume});
    add("parallel.shard_frozen", &P::shard_frozen, boolean(),
        {"", "split frozen weights over dp as well: less memory, two gathers per micro-batch", on_resume});
    add("parallel.rotate", &P::rotate, boolean(),
        {"", "a low-rank shard moves to the next rank when it is switched", on_resume});
    add("parallel.collectives", &P::collectives, one_of({"auto", "nccl", "mpi", "staged"}),
        {"",
         "how tensors travel between GPUs: auto (nccl, else staged), nccl, mpi (from GPU memory) or "
         "staged",
         on_resume});
    add("parallel.sum_order", &P::sum_order, one_of({"rank", "library"}),
        {"", "sums over GPUs: in the order of ranks (the same bits every time), or as NCCL adds", on_resume});
}

void add_kernels_keys(std::vector<Key>& keys) {
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::kernels, member, std::move(rule), std::move(about)));
    };
    add("kernels.attention", &KernelsConfig::attention, one_of({"auto", "own", "cudnn"}),
        {"", "whose attention on GPUs: auto (cuDNN's where it is there and agrees with ours), own or cudnn",
         on_resume});
}

void add_data_keys(std::vector<Key>& keys) {
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::data, member, std::move(rule), std::move(about)));
    };
    using D = DataConfig;
    add("data.tokens", &D::tokens, text(), {"", "token file, made by `switchyard tokenize`", on_resume});
    add("data.seq_len", &D::seq_len, integer(1, max_tokens), {"tokens", "length of a sequence"});
    add("data.micro_batch", &D::micro_batch, integer(1, max_sequences),
        {"sequences", "per rank and forward pass", on_resume});
    add("data.global_batch", &D::global_batch, integer(1, max_sequences),
        {"sequences", "per step, over all ranks"});
    add("data.mask_documents", &D::mask_documents, boolean(), {"", "attention does not cross documents"});
}

void add_optim_keys(std::vector<Key>& keys) {
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::optim, member, std::move(rule), std::move(about)));
    };
    using O = OptimConfig;
    ValueRule below_one = real(0, 0.9999999999999999);
    add("optim.lr", &O::lr, rate(), {"", "peak learning rate; auto: the method's"});
    add("optim.dense_lr", &O::dense_lr, rate(),
        {"", "the same for embedding, head and norms; auto: the method's, 0: lr"});
    add("optim.schedule", &O::schedule, one_of({"cosine", "wsd", "constant"}),
        {"", "learning rate after the warm-up: cosine, wsd (constant, then linear decay) or constant"});
    add("optim.warmup_steps", &O::warmup_steps, integer(0), {"steps", "linear warm-up"});
    add("optim.min_lr_ratio", &O::min_lr_ratio, real(0, 1),
        {"", "last learning rate, as a share of the peak"});
    add("optim.decay_ratio", &O::decay_ratio, real(0, 1), {"", "wsd: share of the steps in the final decay"});
    add("optim.weight_decay", &O::weight_decay, real(0), {"", "decoupled weight decay"});
    add("optim.decay_norms", &O::decay_norms, boolean(),
        {.help = "weight decay on the gains of RMSNorm too, not on matrices alone", .absent_means = "true"});
    add("optim.clip_norm", &O::clip_norm, real(0), {"", "largest global gradient norm; 0: no clipping"});
    add("optim.beta1", &O::beta1, below_one, {"", "decay of AdamW's first moment"});
    add("optim.beta2", &O::beta2, below_one, {"", "decay of AdamW's second moment"});
    add("optim.eps", &O::eps, above(0), {"", "added to the root of AdamW's second moment"});
    add("optim.gradient_dtype", &O::gradient_dtype, one_of({"f32", "bf16"}),
        {"", "number format in which gradients travel: f32 or bf16"});
    add("optim.state_bits", &O::state_bits, one_of({"32", "8"}),
        {"bits", "of a moment of AdamW: 32 or, as codes with a scale for each block of 256, 8"});
    add("optim.min_8bit_size", &O::min_8bit_size, integer(0),
        {"elements", "of a tensor from which on 8 bits are used; smaller ones keep 32"});
}

void add_run_keys(std::vector<Key>& keys) {
    const auto add = [&](const char* name, auto member, ValueRule rule, Description about) {
        keys.push_back(key(name, &Config::run, member, std::move(rule), std::move(about)));
    };
    using R = RunConfig;
    add("run.dir", &R::dir, text(), {"", "run directory: log, status and checkpoints", on_resume});
    add("run.steps", &R::steps, integer(1, 1e9), {"steps", "horizon of the schedules and end of the run"});
    add("run.stop_step", &R::stop_step, integer(0),
        {"steps", "end the run earlier; 0: at run.steps", on_resume});
    add("run.seed", &R::seed, any_seed(), {"", "key of all random numbers"});
    add("run.dtype", &R::dtype, one_of({"f32", "bf16", "f64"}), {"", "compute type: f32, bf16 or f64"});
    add("run.log_interval", &R::log_interval, integer(1),
        {"steps", "between lines of a batch log", on_resume});
    add("run.eval_interval", &R::eval_interval, integer(0),
        {"steps", "between evaluations; 0: only at the end", on_resume});
    add("run.save_interval", &R::save_interval, integer(0),
        {"steps", "between checkpoints; 0: only at the end", on_resume});
    add("run.keep_last", &R::keep_last, integer(1), {"files", "newest checkpoints to keep", on_resume});
    add("run.keep_every", &R::keep_every, integer(0),
        {"steps", "keep checkpoints of multiples of this for good; 0: none", on_resume});
    add("run.async_save", &R::async_save, boolean(),
        {"", "write checkpoints while training goes on, if their copy fits into memory", on_resume});
    add("run.wall_limit", &R::wall_limit, duration(),
        {"s", "save and exit with code 75 before this time is over, also H:M:S; 0: no limit", on_resume});
    add("run.signal_lead", &R::signal_lead, duration(),
        {"s", "how long before the end of the job SIGUSR1 comes, to be compared with a save; 0: not known",
         on_resume});
    add("run.hang_timeout", &R::hang_timeout, duration(),
        {"s", "abort a run without progress for so long; 0: never", on_resume});
    add("run.peak_flops", &R::peak_flops, real(0),
        {"FLOP/s", "of one rank, what utilisation (mfu) refers to; 0: measured at start, in 0.1 s",
         on_resume});
    add("run.check_replicas", &R::check_replicas, integer(0),
        {"steps", "between comparisons of the frozen weights that several ranks hold alike; 0: never",
         on_resume});
    add("run.trace_steps", &R::trace_steps, text(),
        {"first:last", "steps that a profiler records (nsys --capture-range=cudaProfilerApi)", on_resume});
    add("run.init_from", &R::init_from, text(),
        {"", "checkpoint or run directory whose state starts the run at step 0"});
    add("run.init_state", &R::init_state, one_of({"weights", "all"}),
        {"", "what run.init_from takes: weights, or all: optimizer, method and position in the data too"});
}

void add_io_keys(std::vector<Key>& keys) {
    keys.push_back(key("io.window", &Config::io, &IoConfig::window, integer(least_window, largest_window),
                       {"bytes", "length of writes to checkpoints and of reads from them", on_resume}));
}

}  // namespace

const std::vector<Key>& built_in_keys() {
    static const std::vector<Key> keys = [] {
        std::vector<Key> all;
        add_model_keys(all);
        add_method_and_parallel_keys(all);
        add_kernels_keys(all);
        add_data_keys(all);
        add_optim_keys(all);
        add_run_keys(all);
        add_io_keys(all);
        return all;
    }();
    return keys;
}

}  // namespace switchyard

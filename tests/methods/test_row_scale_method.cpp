// RANKS: 1 4
// A method that is more than a low-rank product (tests/support/row_scale_method.hpp) computes one function in
// training, evaluation, generation, export and run.init_from, on 1x1 and 2x2. The reference is a dense model
// on one process, whose weights are computed from the method's parameters by its formula.
#include <gtest/gtest.h>

#include "convert/export.hpp"
#include "core/error.hpp"
#include "inference/generation.hpp"
#include "inference/inference_state.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "kernels/transfer.hpp"
#include "support/layouts.hpp"
#include "support/row_scale_method.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"
#include "support/whole_state.hpp"
#include "train/checkpoint_header.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {
namespace row_scale_method_test {

using test::Values;
using testing::TinyRun;
using testing::WholeState;

// Sums over ranks, layers and tokens are formed in other orders.
constexpr double tolerance = 1e-12;

Config config_of(const std::vector<std::string>& more = {}) {
    testing::register_row_scale_method();
    std::vector<std::string> arguments{std::string("--method.name=") + testing::row_scale_name,
                                       "--method.rank=5", "--model.init_std=0.3", "--data.micro_batch=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return testing::tiny_config(arguments);
}

/// The whole effective weights, computed by the formula from parameters alone; on rank 0.
std::map<std::string, Values> weights_by_formula(const WholeState& state, std::int64_t step) {
    std::map<std::string, Values> weights;
    const double scale = 8.0 / 5;  // alpha / rank
    for (const auto& [path, values] : state) {
        if (!path.starts_with("/model/") || !path.ends_with(".weight")) continue;
        const std::string name = path.substr(7), stem = path.substr(0, path.size() - 7);
        Values w = values;
        if (state.contains(stem + ".lora_A")) {
            const Values &a = state.at(stem + ".lora_A"), &b = state.at(stem + ".lora_B"),
                         &magnitude = state.at(stem + ".magnitude");
            const std::size_t m = magnitude.size(), n = w.size() / m, r = a.size() / n;
            double norm = 0;
            for (double x : a) norm += x * x;
            for (std::size_t i = 0; i < m; ++i) {
                const double g = testing::row_scale_of(
                    magnitude[i], norm, step, static_cast<std::int64_t>(state.at("/method/gain")[0]));
                for (std::size_t j = 0; j < n; ++j) {
                    double product = 0;
                    for (std::size_t slot = 0; slot < r; ++slot) product += b[i * r + slot] * a[slot * n + j];
                    w[i * n + j] = g * (w[i * n + j] + scale * product);
                }
            }
        }
        weights[name] = std::move(w);
    }
    return weights;
}

/// A dense model of these weights on one process, to be fed the same batches.
class Dense {
  public:
    Dense(Config config, const std::map<std::string, Values>& weights)
        : run_(
              [&] {
                  config.method = {method_of_whole_weights(), {}};
                  config.parallel.tp = 1;
                  return config;
              }(),
              topology_) {
        for (Parameter* p : state().model.parameters()) {
            const Values& values = weights.at(p->shard.name);
            test::HostTensor full(DType::f64, p->value.shape());  // rows are padded: valid ones come first
            for (std::size_t i = 0; i < values.size(); ++i)
                full.set(static_cast<std::int64_t>(i / p->shard.cols) * width(*p) +
                             static_cast<std::int64_t>(i % p->shard.cols),
                         values[i]);
            kernels::copy(full, p->value);
        }
        state().model.weights_changed();
    }
    TrainState& state() { return run_.state(); }
    double loss(std::int64_t first_sample) {
        double sum = 0;
        const Config& c = run_.config();
        for (std::int64_t i = 0; i < c.data.global_batch; ++i) {
            testing::upload_batch(c, state().model, first_sample + i);
            state().model.evaluate();
            sum += testing::numbers(state().model.loss())[0];
        }
        return sum / static_cast<double>(c.data.global_batch * c.data.seq_len);
    }
    Values logits(const std::vector<std::int32_t>& tokens) {
        kernels::upload(tokens.data(), state().model.batch().tokens);
        kernels::upload(std::vector<std::int32_t>(tokens.size(), -1).data(), state().model.batch().targets);
        state().model.read();
        const test::HostTensor out(DType::f64, {1, state().model.vocabulary().padded});
        state().model.next_token_logits(static_cast<std::int64_t>(tokens.size()) - 1, out);
        return out.values();
    }

  private:
    static std::int64_t width(const Parameter& p) { return p.shard.global.rank() == 2 ? p.value.dim(1) : 1; }
    const Topology topology_ = testing::serial();
    TinyRun run_;
};

/// 1x1, or 2x2 on four ranks: a run of five steps, its checkpoint, and what it computes by the formula.
class RowScale : public ::testing::Test {
  protected:
    RowScale()
        : world_(Comm::duplicate(MPI_COMM_WORLD)),
          config_(config_of()),
          topology_(Topology::create(world_, world_.size() == 4 ? 2 : 1)) {
        config_.parallel.tp = topology_.tp_size();
        shared_ = broadcast(world_, folder_.path());
        run_.emplace(config_, topology_);
        run_->losses(5);
        const WholeState state = testing::whole_state(run_->state());
        if (world_.rank() == 0) weights_ = weights_by_formula(state, 5);
        CheckpointWriter writer(world_, file());
        CheckpointHeader header;
        header.step = 5;
        header.config = config_text(config_, method_options());
        header.dtype = "f64";
        write_header(writer, header, 0, topology_);
        StateIo io(writer);
        run_->state().visit(io);
        writer.commit();
    }
    ~RowScale() override { barrier(world_); }

    std::string file() const { return shared_ + "/state.h5"; }
    /// Sum of losses over samples from `first` on, shared out over dp as a step does; collective.
    double evaluated(ModelState& state, std::int64_t first) {
        const Topology& t = state.context.topology;
        const std::int64_t mine = config_.data.global_batch / t.dp_size();
        double sum = 0;
        for (std::int64_t i = 0; i < mine; ++i) {
            testing::upload_batch(config_, state.model, first + t.dp_rank() * mine + i);
            state.model.evaluate();
            sum += testing::numbers(state.model.loss())[0];
        }
        return all_reduce_sum(t.dp, sum) /
               static_cast<double>(config_.data.global_batch * config_.data.seq_len);
    }
    /// The loss of the dense model, computed on rank 0.
    double expected(std::int64_t first) {
        return all_reduce_max(world_, world_.rank() == 0 ? Dense(config_, weights_).loss(first) : 0.0);
    }

    test::TemporaryDirectory folder_;
    Comm world_;
    Config config_;
    Topology topology_;
    std::string shared_;
    std::optional<TinyRun> run_;
    std::map<std::string, Values> weights_;
};

TEST_F(RowScale, TrainsWithItsFunctionAndItsRate) {
    const std::int64_t first = 5 * config_.data.global_batch;
    const double loss = expected(first);
    const StepResult step = run_->step();
    EXPECT_NEAR(step.loss, loss, tolerance * loss);
    ASSERT_EQ(step.method.objective.size(), 1u);
    EXPECT_EQ(step.method.objective[0], (std::pair<std::string, double>("gain", 3)));
    Config unset =
        parse_config("", "", {std::string("--method.name=") + testing::row_scale_name}, method_options())
            .config;
    resolve_auto(unset);
    EXPECT_EQ(unset.optim.lr, testing::row_scale_lr);
    EXPECT_EQ(unset.optim.dense_lr, 1e-3);
}

TEST_F(RowScale, EvaluatesTheSameWhileTraining) {
    EXPECT_NEAR(evaluated(run_->state(), 900), expected(900), tolerance * expected(900));
}

TEST_F(RowScale, EvaluatesTheSameFromAFile) {
    Traffic traffic;
    const auto inference = allocate_inference(config_, topology_, traffic);
    inference->state->load(CheckpointReader(world_, file()));
    EXPECT_NEAR(evaluated(*inference->state, 900), expected(900), tolerance * expected(900));
}

TEST_F(RowScale, GeneratesFromTheSameLogits) {
    const std::vector<std::int32_t> prompt{3, 17, 40, 8, 1, 0, 22, 5};
    Traffic traffic;
    const auto inference = allocate_inference(config_, topology_, traffic);
    InferenceState& state = *inference->state;
    state.load(CheckpointReader(world_, file()));
    GenerationSettings greedy;
    greedy.max_tokens = 1;
    greedy.temperature = 0;
    greedy.num_tokens = config_.model.vocab_size;
    std::vector<std::int32_t> drawn;
    generate(state, greedy, prompt, [&](std::int32_t token) { drawn.push_back(token); });
    ASSERT_EQ(drawn.size(), 1u);
    const std::int64_t local = state.model.vocabulary().padded;
    const test::HostTensor mine(DType::f64, {1, local});
    state.model.next_token_logits(static_cast<std::int64_t>(prompt.size()) - 1, mine);
    Values logits;
    for (int tp = 0; tp < topology_.tp_size(); ++tp)
        for (std::int64_t i = 0; i < local; ++i)
            logits.push_back(all_reduce_sum(topology_.tp, topology_.tp_rank() == tp ? mine.at(i) : 0.0));
    if (world_.rank() != 0) return;
    const Values all = Dense(config_, weights_).logits(prompt);
    for (std::int64_t i = 0; i < config_.model.vocab_size; ++i)
        EXPECT_NEAR(logits[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i)], tolerance * 10);
    EXPECT_EQ(drawn[0], std::max_element(all.begin(), all.begin() + config_.model.vocab_size) - all.begin());
}

TEST_F(RowScale, ExportsTheSameWeights) {
    export_weights(world_, {.checkpoint = file(), .directory = shared_ + "/out", .tokenizer = false});
    if (world_.rank() != 0) return;
    const SafetensorsDirectory directory(shared_ + "/out");
    for (const auto& [name, values] : weights_) {
        std::vector<float> stored(values.size());
        directory.file_of(name).read_f32(name, 0, static_cast<std::int64_t>(values.size()), stored.data());
        double largest = 0;
        for (double x : values) largest = std::max(largest, std::abs(x));
        for (std::size_t i = 0; i < values.size(); ++i)  // f32 in the file, rounded once from f64
            ASSERT_NEAR(stored[i], values[i], std::abs(values[i]) * 0x1p-24 + tolerance * largest) << name;
    }
}

TEST_F(RowScale, StartsAnotherRunFromTheSameFunction) {
    for (const std::string& method :
         {std::string(method_of_whole_weights()), std::string("lora"), config_.method.name}) {
        Config other =
            testing::tiny_config({"--method.name=" + method, "--model.init_std=0.3", "--data.micro_batch=1"});
        other.parallel.tp = topology_.tp_size();
        TinyRun next(other, topology_);
        next.state().initialise_from(CheckpointReader(world_, file()));
        EXPECT_NEAR(evaluated(next.state(), 900), expected(900), tolerance * expected(900)) << method;
    }
}

TEST_F(RowScale, RefusesAnAdapterByName) {
    const std::string message = test::message_of<UserError>([&] {
        export_weights(
            world_,
            {.checkpoint = file(), .directory = shared_ + "/out", .adapters = true, .tokenizer = false});
    });
    EXPECT_CONTAINS(message, std::string("`export --adapters` cannot use `") + file());
    EXPECT_CONTAINS(message, std::string("method.name = ") + testing::row_scale_name);
    EXPECT_CONTAINS(message, "no place for its row scale); leave --adapters out");
}

/// A bf16 run trains the vector in f32, because its updates are far smaller than the spacing of bf16.
TEST_F(RowScale, TrainsAVectorInF32BesideBf16) {
    Config config = config_of({"--run.dtype=bf16", "--optim.lr=1e-5", "--optim.weight_decay=0"});
    config.parallel.tp = topology_.tp_size();
    TinyRun run(config, topology_);
    const auto vectors = [&] {
        std::vector<std::pair<std::string, Values>> all;
        for (Parameter* p : run.state().model.parameters())
            if (p->shard.name.ends_with(".magnitude")) {
                EXPECT_EQ(p->value.dtype(), DType::f32);
                Values values = testing::numbers(p->value);
                values.resize(static_cast<std::size_t>(p->shard.rows));  // without padding
                all.emplace_back(p->shard.name, std::move(values));
            }
        return all;
    };
    const auto before = vectors();
    run.losses(8);
    const auto after = vectors();
    ASSERT_FALSE(before.empty());
    for (std::size_t i = 0; i < before.size(); ++i) {
        std::size_t moved = 0;
        for (std::size_t j = 0; j < before[i].second.size(); ++j)
            moved += before[i].second[j] != after[i].second[j];
        EXPECT_GT(moved, before[i].second.size() / 2) << before[i].first;
        // Replicas over dp, and of a row-parallel linear over tp, hold the same bits.
        for (double value : after[i].second) {
            const double largest = all_reduce_max(topology_.dp, value);
            EXPECT_EQ(largest, value) << before[i].first;
        }
    }
}

}  // namespace row_scale_method_test
}  // namespace switchyard

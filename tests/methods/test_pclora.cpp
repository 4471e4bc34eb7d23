// RANKS: 1 2 3 4
// PC-LoRA on every layout against a reference on one process (reference/pclora.hpp) over 100 steps in f64:
// loss, distance from the teacher, gradient norm and the whole state; central differences of the objective;
// the teacher at the start and the base at the end.
#include <gtest/gtest.h>

#include <numbers>

#include "core/call_counts.hpp"
#include "kernels/elementwise.hpp"
#include "reference/pclora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace pclora_test {

using reference::Array;
using reference::CompressedLinear;
using reference::CompressedLlama;
using reference::Trained;
using testing::tiny_config;
using testing::TinyRun;

std::vector<std::string> arguments_of(std::vector<std::string> more) {
    more.insert(more.begin(), {"--method.name=pclora", "--method.rank=5", "--method.alpha=4",
                               "--model.init_std=0.2", "--model.num_layers=1", "--optim.lr=0.003",
                               "--optim.eps=1e-4", "--optim.schedule=constant", "--optim.warmup_steps=0"});
    return more;
}

double base_factor(const std::string& decay, double part) {
    if (part >= 1) return 0;
    if (decay == "linear") return 1 - part;
    if (decay == "sine") return 1 - std::sin(std::numbers::pi * part / 2);
    if (decay == "cosine") return std::cos(std::numbers::pi * part / 2);
    return 1;
}

class Reference {
  public:
    explicit Reference(const Config& config) : config_(config), bias_(option_boolean(config.method, "bias")) {
        const ModelConfig& m = config.model;
        llama_.s = {static_cast<std::size_t>(config.data.global_batch),
                    static_cast<std::size_t>(config.data.seq_len),
                    static_cast<std::size_t>(m.hidden_size),
                    static_cast<std::size_t>(m.num_heads),
                    static_cast<std::size_t>(m.num_kv_heads),
                    static_cast<int>(m.num_layers),
                    m.norm_eps,
                    m.rope_theta};
        testing::DenseModel shapes(config);
        for (const Parameter* p : shapes.parameters()) add(p->shard);
    }

    /// At a constant rate.
    void step() {
        forward_and_backward();
        double squares = 0;
        const auto add_squares = [&](const Array& values) {
            for (const double x : values) squares += x * x;
        };
        for (auto& [name, x] : llama_.linears)
            for (const auto& part : x.parts(bias_)) add_squares(*part.gradient);
        for (auto& [name, gradient] : llama_.d_dense) add_squares(gradient);
        grad_norm = std::sqrt(squares);
        const OptimConfig& o = config_.optim;
        const double clip = std::min(1.0, o.clip_norm / grad_norm);
        const auto rates = [&](bool decays) {
            return reference::AdamWRates{o.lr, o.beta1, o.beta2, o.eps, decays ? o.weight_decay : 0};
        };
        for (auto& [name, x] : llama_.linears)
            for (const auto& part : x.parts(bias_))
                part.trained->update(*part.gradient, clip, rates(part.decays), {});
        for (auto& [name, x] : llama_.dense) x.update(llama_.d_dense.at(name), clip, rates(x.cols > 1), {});
        ++step_;
    }
    /// loss and distance of the next step.
    void forward_and_backward() {
        const std::int64_t count = config_.data.global_batch;
        Batch batch;
        testing::synthetic_tokens(config_)(step_ * count, count, batch);
        const double steps = static_cast<double>(option_integer(config_.method, "decay_steps"));
        llama_.step(batch.tokens, batch.targets,
                    base_factor(option_text(config_.method, "decay"), static_cast<double>(step_) / steps),
                    option_real(config_.method, "task_weight"));
    }
    double loss() const { return llama_.loss; }
    double distillation() const { return (1 - option_real(config_.method, "task_weight")) * llama_.distance; }

    testing::WholeState whole() {
        using Run = testing::ReferenceRun<CompressedLinear>;
        testing::WholeState all;
        for (auto& [name, x] : llama_.dense) Run::put(all, name, x, false);
        for (auto& [name, x] : llama_.linears) {
            all["/model/" + name + ".weight"] = x.w;
            for (const auto& part : x.parts(bias_))
                Run::put(all, name + part.suffix, *part.trained, part.transposed);
        }
        for (auto& [name, values] : llama_.of_teacher) all["/method/teacher/" + name] = values;
        return all;
    }

    double grad_norm = 0;

  private:
    void add(const Shard& shard) {
        const int rows = static_cast<int>(shard.rows), cols = static_cast<int>(shard.cols);
        const auto drawn = [&](int i) {
            return config_.model.init_std * normal(stream_key(config_.run.seed, shard.name), i);
        };
        if (shard.name.ends_with("_proj.weight")) {
            const std::string linear = shard.name.substr(0, shard.name.size() - 7);
            CompressedLinear x(rows, cols, 5, option_real(config_.method, "alpha"));
            for (int i = 0; i < rows * cols; ++i) x.w[i] = drawn(i);
            const std::uint64_t stream = stream_key(config_.run.seed, linear + ".lora_A");
            for (int i = 0; i < x.r * cols; ++i)
                x.a.numbers[i].value = (2 * uniform(stream, i) - 1) / std::sqrt(static_cast<double>(cols));
            llama_.linears.emplace(linear, std::move(x));
            return;
        }
        Trained& x = llama_.dense[shard.name] = {rows, cols};
        for (int i = 0; i < rows * cols; ++i) x.numbers[i].value = cols == 1 ? 1 : drawn(i);
        if (shard.name != "lm_head.weight" && shard.name != "model.norm.weight")
            llama_.of_teacher[shard.name] = llama_.values(shard.name);
    }

    Config config_;
    bool bias_;
    CompressedLlama llama_;
    std::int64_t step_ = 0;
};

void expect_reference(const std::vector<std::string>& arguments, int steps) {
    steps = testing::reference_steps(steps);
    const Config config = tiny_config(arguments_of(arguments));
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    testing::WholeState expected;
    std::vector<std::array<double, 3>> numbers;
    double next_loss = 0;
    if (rank == 0) {
        Reference reference(config);
        for (int t = 0; t < steps; ++t) {
            reference.step();
            numbers.push_back({reference.loss(), reference.distillation(), reference.grad_norm});
        }
        expected = reference.whole();
        reference.forward_and_backward();
        next_loss = reference.loss();
    }
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (int t = 0; t < steps; ++t) {
            const StepResult step = run.step();
            ASSERT_EQ(step.method.objective.size(), 1u);
            EXPECT_EQ(step.method.objective[0].first, "distillation");
            if (rank > 0) continue;
            EXPECT_NEAR(step.loss, numbers[t][0], 1e-10 * numbers[t][0]) << "step " << t;
            EXPECT_NEAR(step.method.objective[0].second, numbers[t][1], 1e-10 * numbers[t][1] + 1e-28)
                << "step " << t;
            EXPECT_NEAR(step.grad_norm, numbers[t][2], 1e-10 * numbers[t][2]) << "step " << t;
        }
        const testing::WholeState state = testing::whole_state(run.state());
        if (rank == 0)
            fmt::print("tp {} dp {}: largest difference {:.1e}\n", here.parallel.tp, topology.dp_size(),
                       testing::expect_close(state, expected, 1e-10));
        // An evaluation has the factor of the step that the weights have reached.
        if (topology.world.size() == 1) {
            EXPECT_NEAR(testing::batch_loss(run, steps), next_loss, 1e-10 * next_loss);
        }
    });
}

TEST(PcLora, EqualsOneProcess) {
    expect_reference({"--method.decay_steps=70"}, 100);
}

TEST(PcLora, ShardedWeightsAndRecomputationEqualOneProcess) {
    expect_reference({"--method.decay_steps=8", "--method.decay=sine", "--model.num_layers=3",
                      "--parallel.shard_frozen=true", "--model.recompute=true"},
                     10);
}

TEST(PcLora, OtherDecaysAndWeightsEqualOneProcess) {
    expect_reference({"--method.decay_steps=8", "--method.decay=cosine", "--method.task_weight=0.7",
                      "--method.bias=false"},
                     10);
    if (backend::processor().is_gpu) return;
    expect_reference({"--method.decay_steps=8", "--method.decay=identity", "--method.task_weight=0.05",
                      "--model.recompute=true", "--model.num_layers=2"},
                     10);
}

/// Step 0 has factor 1, and B and C are zero: all outputs are those of the teacher, bit for bit.
TEST(PcLora, StartsAsItsTeacher) {
    for (const char* dtype : {"f64", "f32", "bf16"})
        testing::for_each_layout(
            tiny_config(arguments_of(
                {std::string("--run.dtype=") + dtype, "--model.recompute=true", "--model.num_layers=2"})),
            [&](const Config& config, const Topology& topology) {
                TinyRun run(config, topology);
                const StepResult first = run.step();
                EXPECT_EQ(first.method.objective.at(0).second, 0);
                EXPECT_GT(first.grad_norm, 0);
                EXPECT_GT(run.step().method.objective.at(0).second, 0);
            });
}

/// When the factor is 0, neither the function nor a step without a teacher reads the frozen weights, and both
/// products with them are left out.
TEST(PcLora, EndsWithoutItsBase) {
    const Config config = tiny_config(arguments_of({"--method.decay_steps=3", "--method.task_weight=1",
                                                    "--parallel.shard_frozen=true", "--data.micro_batch=1"}));
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        const auto rest = [&](bool wiped) {
            TinyRun run(here, topology);
            const auto step = [&](std::vector<double>& numbers) {
                count_calls(true);
                const StepResult result = run.step();
                std::int64_t products = 0;
                for (const Phase phase : {Phase::forward, Phase::backward})
                    products += calls_of_last_step()[phase].kernels.at("matmul");
                count_calls(false);
                EXPECT_TRUE(result.method.objective.empty());
                numbers = {result.loss, result.grad_norm};
                return products;
            };
            std::vector<double> numbers;
            const std::int64_t with_base = step(numbers);
            run.losses(2);
            for (Linear* linear : run.state().model.linears())
                if (wiped) kernels::fill(linear->base().words.hi, NAN);
            run.state().model.weights_changed();
            const std::int64_t passes = here.data.global_batch / topology.dp_size();
            EXPECT_EQ(step(numbers), with_base - 2 * 7 * passes);
            EXPECT_GT(numbers[1], 0);
            return numbers;
        };
        const std::vector<double> numbers = rest(false);
        EXPECT_EQ(rest(true), numbers);
    });
}

/// The teacher is that of the file, not the model of step 0 of the run that reads it; a run without biases
/// does not start from weights with them.
TEST(PcLora, FilesHoldTheTeacher) {
    const Config config = tiny_config(arguments_of({"--method.decay_steps=9", "--run.dtype=bf16"}));
    testing::for_each_layout(config, [&](Config here, const Topology& topology) {
        const test::TemporaryDirectory folder;
        const std::string file = broadcast(topology.world, folder.file("state.h5"));
        TinyRun run(here, topology);
        run.losses(3);
        CheckpointWriter writer(topology.world, file);
        StateIo saved(writer);
        writer.attribute("/", "dtype", std::string("bf16"));
        run.state().visit(saved);
        writer.commit();
        here.run.seed += 1;
        TinyRun other(here, topology);
        const CheckpointReader reader(topology.world, file);
        StateIo loaded(reader);
        other.state().step = 3;
        other.state().visit(loaded);
        for (int i = 0; i < 2; ++i) {
            const StepResult expected = run.step(), step = other.step();
            EXPECT_EQ(step.loss, expected.loss);
            EXPECT_EQ(step.method.objective, expected.method.objective);
            EXPECT_EQ(step.grad_norm, expected.grad_norm);
        }
        here.method = tiny_config({"--method.name=lora"}).method;
        TinyRun lora(here, topology);
        const std::string text = test::message_of<UserError>(
            [&] { lora.state().initialise_from(CheckpointReader(topology.world, file)); });
        EXPECT_CONTAINS(text, "has a bias of model.layers.0.");
    });
}

/// `most` elements of everything that is trained against central differences of fourth order of the objective
/// as the program reports it. The rate is so small that no value changes.
void expect_differences(const std::vector<std::string>& more, int most) {
    if (Comm::duplicate(MPI_COMM_WORLD).size() > 1) GTEST_SKIP() << "on one rank";
    std::vector<std::string> arguments = arguments_of(
        {"--optim.clip_norm=1e9", "--data.global_batch=2", "--data.micro_batch=2", "--method.decay_steps=8"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Config config = tiny_config(arguments);
    const Topology one = testing::serial();
    TinyRun run(config, one);
    TrainState& s = run.state();
    run.losses(3);  // so that no factor or bias is zero, and the model is not its teacher
    for (Parameter* p : s.model.parameters())
        if (p->shard.name.ends_with(".lora_bias")) {
            test::HostTensor values = test::host_copy(p->value);
            for (std::int64_t i = 0; i < p->shard.rows; ++i) values.set(i, 0.1 * normal(9, i));
            kernels::upload(values.bytes(), p->value);
        }
    s.optimizer.masters_from_values();
    std::map<std::string, test::Values> gradients;
    testing::HookedMethod& hooked = testing::HookedMethod::install(s);
    hooked.no_update = true;
    const auto objective = [&] {
        s.step = 3;
        s.weights_changed();
        const StepResult step = run.step();
        return s.method->task_weight() * step.loss + step.method.objective.at(0).second;
    };
    hooked.after_reduction = [&] {
        for (Parameter* p : s.model.parameters()) gradients[p->shard.name] = test::values_of(p->gradient);
    };
    objective();
    hooked.after_reduction = [] {};
    for (Parameter* p : s.model.parameters()) {
        const std::string& name = p->shard.name;
        test::HostTensor values = test::host_copy(p->value);
        double largest = 0;
        for (const double x : gradients.at(name)) largest = std::max(largest, std::fabs(x));
        EXPECT_GT(largest, 1e-5) << name;
        const std::int64_t stride = values.size() / values.shape()[0];
        for (int i = 0; i < most; ++i) {
            const std::int64_t at = i * 7 % p->shard.rows * stride + i * 5 % p->shard.cols;
            const double value = values.at(at), step = 1e-3;
            const auto at_shift = [&](double shift) {
                values.set(at, value + shift * step);
                kernels::upload(values.bytes(), p->value);
                return objective();
            };
            const double near = at_shift(1) - at_shift(-1), far = at_shift(2) - at_shift(-2);
            values.set(at, value);
            kernels::upload(values.bytes(), p->value);
            EXPECT_NEAR(gradients.at(name)[static_cast<std::size_t>(at)], (8 * near - far) / (12 * step),
                        2e-9 * largest + 1e-12)
                << name << " " << at;
        }
    }
}

TEST(PcLora, GradientsAreDifferencesOfTheObjective) {
    expect_differences({}, testing::reference_steps(16) < 16 ? 1 : 3);
}

TEST(PcLora, GradientsOfRecomputedBlocksAreDifferencesOfTheObjective) {
    if (backend::processor().is_gpu) GTEST_SKIP() << "the reference is enough where kernels may be emulated";
    expect_differences({"--model.recompute=true", "--model.num_layers=3", "--parallel.shard_frozen=true"}, 1);
}

}  // namespace pclora_test
}  // namespace switchyard

// RANKS: 1 2 3 4
// optim.state_bits = 8 in whole runs: every method takes it, losses and codes are those of one process on every
// layout, files hold codes and scales and go from layout to layout without a change, and the loss stays near
// that of 32 bits. Rows are cut over tp where blocks of 256 are not, and where three ranks share one.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "methods/registry.hpp"
#include "reference/moment_codes.hpp"
#include "reference/switchlora.hpp"
#include "support/dense_model.hpp"
#include "support/serial_losses.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

constexpr const char* elsewhere =
    "tests/regression/test_back_ends.py compares every layout with the CPU's";

/// Calm settings, as in test_layouts.
std::vector<std::string> arguments_of(const std::string& method) {
    std::vector<std::string> all{"--method.name=" + method, "--optim.state_bits=8", "--optim.eps=1e-4",
                                 "--optim.lr=0.004",        "--data.seq_len=4",     "--model.num_layers=1"};
    const auto add = [&](std::vector<std::string> more) { all.insert(all.end(), more.begin(), more.end()); };
    if (method == "relora") add({"--method.merge_interval=6", "--method.restart_warmup=2", "--method.alpha=6"});
    if (method == "galore" || method == "apollo") add({"--method.update_interval=7"});
    if (method == "riemannian" || method == "melora") add({"--method.alpha=6"});
    if (method == "flatlora") add({"--method.noise=0.5", "--method.alpha=6"});
    if (method == "switchlora")
        add({"--method.switch_interval=6", "--method.freeze_steps=3", "--method.switch_ratio=1"});
    return all;
}

/// Rows of 264 and 300 columns: on 2 ranks a block begins on one and ends on the other, on 3 and 4 ranks more
/// of them share the first one.
Config wide_config(const std::string& method, std::vector<std::string> more = {}) {
    std::vector<std::string> all = arguments_of(method);
    all.insert(all.end(), {"--model.hidden_size=264", "--model.ffn_size=300", "--data.micro_batch=1"});
    if (method != "full" && method != "muon") all.push_back("--method.rank=24");
    all.insert(all.end(), more.begin(), more.end());
    return tiny_config(all);
}

bool is_codes(const std::string& name) {
    return name.ends_with("_codes");
}

class CodedMoments : public ::testing::TestWithParam<const char*> {};

TEST_P(CodedMoments, LossesAndCodesAreThoseOfOneProcess) {
    if (backend::processor().is_gpu) GTEST_SKIP() << elsewhere;
    constexpr int num_steps = 5;
    const Config config = wide_config(GetParam());
    const std::vector<double> expected = testing::serial_losses(config, num_steps);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    testing::WholeState of_one;
    if (rank == 0) {
        const Topology one = testing::serial();
        TinyRun run(config, one);
        run.losses(num_steps);
        of_one = testing::whole_state(run.state());
        EXPECT_TRUE(std::any_of(of_one.begin(), of_one.end(), [](const auto& x) { return is_codes(x.first); }));
    }
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        const std::vector<double> losses = run.losses(num_steps);
        for (int step = 0; step < num_steps; ++step)
            EXPECT_NEAR(losses[step], expected[step], 1e-10 * expected[step]) << "step " << step;
        const testing::WholeState state = testing::whole_state(run.state());
        for (const auto& [name, values] : state) {
            const test::Values& other = of_one.at(name);
            if (is_codes(name)) {
                EXPECT_EQ(values, other) << name;
            }
            if (!name.ends_with("_scales")) continue;
            ASSERT_EQ(values.size(), other.size()) << name;
            const double largest = *std::max_element(other.begin(), other.end());
            for (std::size_t i = 0; i < values.size(); ++i)
                ASSERT_NEAR(values[i], other[i], 1e-9 * largest) << name << " " << i;
        }
    });
}

/// One process writes; a layout reads, writes the same, and goes on as the process does; and the reverse.
TEST_P(CodedMoments, FilesGoFromLayoutToLayoutWithoutAChange) {
    const bool is_gpu = backend::processor().is_gpu;
    const std::string method = GetParam();
    if (is_gpu && method != "switchlora" && method != "apollo")
        GTEST_SKIP() << "a method with slots and one with moments of its own width show it";
    const Config config = is_gpu ? tiny_config([] {
        std::vector<std::string> all = arguments_of(GetParam());
        all.push_back("--optim.min_8bit_size=0");
        return all;
    }())
                                 : wide_config(GetParam());
    constexpr int num_steps = 2;
    const test::TemporaryDirectory folder;
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    const std::string shared = broadcast(world, folder.path());
    const auto file = [&](const char* name) { return shared + "/" + name; };
    const auto save = [&](TinyRun& run, const char* name) {
        CheckpointWriter writer(run.state().context.topology.world, file(name));
        StateIo io(writer);
        run.state().visit(io);
        writer.commit();
    };
    const auto load = [&](TinyRun& run, const char* name) {
        const CheckpointReader reader(run.state().context.topology.world, file(name));
        StateIo io(reader);
        run.state().step = num_steps;
        run.state().visit(io);
    };
    const auto expect_identical = [&](const char* a, const char* b) {
        for (const Difference& d : diff_files(file(a), file(b), 0))
            if (!d.path.ends_with(".row_scale")) ADD_FAILURE() << a << " " << b << ": " << d.path << " " << d.text;
    };
    const Topology one = testing::serial();
    double next = 0;
    if (world.rank() == 0) {
        TinyRun run(config, one);
        run.losses(num_steps);
        save(run, "one.h5");
        next = run.step().loss;
    }
    barrier(world);
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        {
            TinyRun run(here, topology);
            load(run, "one.h5");
            save(run, "many.h5");
            const double loss = run.step().loss;
            if (world.rank() == 0) {
                EXPECT_NEAR(loss, next, 1e-10 * next);
                expect_identical("one.h5", "many.h5");
            }
        }
        {
            TinyRun run(here, topology);
            run.losses(num_steps);
            save(run, "begun.h5");
            const double expected = run.step().loss;
            TinyRun again(here, topology);
            load(again, "begun.h5");
            EXPECT_EQ(again.step().loss, expected) << "bit for bit on the layout that wrote the file";
        }
        if (world.rank() == 0) {
            TinyRun run(config, one);
            load(run, "begun.h5");
            save(run, "back.h5");
            expect_identical("begun.h5", "back.h5");
        }
        barrier(world);
    });
}

TEST_P(CodedMoments, TheLossStaysNearThatOf32Bits) {
    if (backend::processor().is_gpu) GTEST_SKIP() << elsewhere;
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks > 1) GTEST_SKIP() << "on one rank; the others have the same losses";
    const Topology one = testing::serial();
    const auto mean_of_last = [&](const char* bits) {
        std::vector<std::string> all = arguments_of(GetParam());
        all.insert(all.end(), {std::string("--optim.state_bits=") + bits, "--optim.min_8bit_size=0",
                               "--optim.eps=1e-8", "--run.dtype=f32", "--run.steps=80"});
        const std::vector<double> losses = TinyRun(tiny_config(all), one).losses(80);
        EXPECT_LT(losses.back(), 0.95 * losses.front());
        double sum = 0;
        for (int i = 70; i < 80; ++i) sum += losses[static_cast<std::size_t>(i)];
        return sum / 10;
    };
    const double wide = mean_of_last("32");
    EXPECT_NEAR(mean_of_last("8"), wide, 0.005 * wide);
}

INSTANTIATE_TEST_SUITE_P(Methods, CodedMoments,
                         ::testing::Values("full", "lora", "switchlora", "relora", "dora", "sora", "galore",
                                           "muon", "apollo", "riemannian", "melora", "flatlora"),
                         [](const auto& info) { return std::string(info.param); });

/// Moments of a row, block by block, become what their codes stand for.
void round_moments(reference::Trained& x) {
    const auto round = [&](int first, int end, double reference::AdamWNumber::*moment, bool has_signs) {
        reference::CodedBlock<double> block(static_cast<std::size_t>(end - first), has_signs);
        for (int i = first; i < end; ++i) block.next[i - first] = x.numbers[i].*moment;
        block.encode();
        for (int i = first; i < end; ++i) x.numbers[i].*moment = block.value(i - first);
    };
    for (int row = 0; row < x.rows; ++row)
        for (int column = 0; column < x.cols; column += 256) {
            const int first = row * x.cols + column, end = row * x.cols + std::min(x.cols, column + 256);
            round(first, end, &reference::AdamWNumber::m, true);
            round(first, end, &reference::AdamWNumber::v, false);
        }
}

/// AdamW in doubles whose moments are rounded after each step.
TEST(CodedMomentsTest, AreThoseOfAReferenceOfOneProcess) {
    const Config config = wide_config("full", {"--model.ffn_size=37", "--optim.schedule=constant",
                                               "--optim.warmup_steps=0", "--optim.dense_lr=0.004"});
    const int num_steps = backend::processor().is_gpu ? 2 : 5;
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    std::map<std::string, reference::Trained> trained;
    if (rank == 0) {
        testing::DenseModel model([&] {
            Config wide = config;
            wide.optim.state_bits = "32";
            return wide;
        }());
        for (Parameter* p : model.parameters()) {
            reference::Trained& x = trained[p->shard.name] = {static_cast<int>(p->shard.rows),
                                                              static_cast<int>(p->shard.cols)};
            const test::Values values = test::values_of(p->value);
            const auto stride = static_cast<int>(values.size()) / static_cast<int>(p->value.dim(0));
            for (int i = 0; i < x.rows * x.cols; ++i)
                x.numbers[i].value = values[static_cast<std::size_t>(i / x.cols * stride + i % x.cols)];
        }
        const OptimConfig& o = config.optim;
        for (int t = 0; t < num_steps; ++t) {
            for (auto& [name, x] : trained) {
                test::Values values;
                for (const auto& number : x.numbers) values.push_back(number.value);
                model.set(name, values);
            }
            const auto& gradients = model.gradients();
            double sum = 0;
            for (auto& [name, x] : trained)
                for (double g : gradients.at(name)) sum += g * g;
            const double clip = std::min(1.0, o.clip_norm / std::sqrt(sum));
            for (auto& [name, x] : trained) {
                x.update(gradients.at(name), clip,
                         {o.lr, o.beta1, o.beta2, o.eps, x.cols == 1 ? 0 : o.weight_decay}, {});
                if (x.cols > 1 && x.rows * x.cols >= o.min_8bit_size) round_moments(x);
            }
        }
    }
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        run.losses(num_steps);
        const testing::WholeState state = testing::whole_state(run.state());
        if (rank != 0) return;
        for (const auto& [name, x] : trained) {
            test::Values value, m, v;
            for (const auto& number : x.numbers)
                value.push_back(number.value), m.push_back(number.m), v.push_back(number.v);
            const auto expect = [&](const std::string& path, const test::Values& expected,
                                    const test::Values& actual) {
                ASSERT_EQ(actual.size(), expected.size()) << path;
                double largest = 0;
                for (double number : expected) largest = std::max(largest, std::fabs(number));
                for (std::size_t i = 0; i < actual.size(); ++i)
                    ASSERT_NEAR(actual[i], expected[i], 1e-10 * largest) << path << " " << i;
            };
            expect(name, value, state.at("/model/" + name));
            for (const auto& [moment, numbers] : {std::pair{"m", &m}, {"v", &v}}) {
                const std::string path = "/optimizer/" + name + "/" + moment;
                if (state.contains(path)) {
                    expect(path, *numbers, state.at(path));
                    continue;
                }
                const test::Values &codes = state.at(path + "_codes"), &scales = state.at(path + "_scales");
                const std::vector<float>& map = reference::code_map(moment == std::string("m"));
                test::Values decoded;
                const int blocks = (x.cols + 255) / 256;
                for (int i = 0; i < x.rows * x.cols; ++i)
                    decoded.push_back(map[static_cast<std::size_t>(codes[static_cast<std::size_t>(i)])] *
                                      scales[static_cast<std::size_t>(i / x.cols * blocks +
                                                                      i % x.cols / 256)]);
                expect(path, *numbers, decoded);
            }
        }
    });
}

TEST(CodedMomentsTest, AreForPairsOfMomentsOfLargeTensorsAlone) {
    testing::for_each_layout(
        wide_config("muon"), [&](const Config& here, const Topology& topology) {
            TinyRun run(here, topology);
            for (const OwnedParameter& owned : run.state().optimizer.owned()) {
                const Parameter& p = owned.parameter();
                EXPECT_EQ(owned.coded(), p.role == ParameterRole::embedding || p.role == ParameterRole::head)
                    << p.shard.name << ": norms are small, and muon's momentum is no pair";
            }
        });
    for (const auto& [least, coded] : {std::pair{"13992", true}, {"13993", false}}) {  // 53 x 264
        const Topology one = testing::serial();
        TinyRun run(wide_config("full", {std::string("--optim.min_8bit_size=") + least}), one);
        for (const OwnedParameter& owned : run.state().optimizer.owned())
            if (owned.parameter().role == ParameterRole::embedding) {
                EXPECT_EQ(owned.coded(), coded) << least;
            }
    }
}

TEST(CodedMomentsTest, TakeAQuarterOfTheMemory) {
    const Topology one = testing::serial();
    const auto moments = [&](const char* bits) {
        TinyRun run(wide_config("full", {std::string("--optim.state_bits=") + bits, "--run.dtype=f32"}),
                          one);
        return run.state().context.arena.bytes(MemoryClass::moments);
    };
    const auto wide = static_cast<double>(moments("32")), coded = static_cast<double>(moments("8"));
    EXPECT_NEAR(coded / wide, 0.26, 0.01);  // 1 + 4 * 2 blocks / 264 of 4 bytes, and small tensors
}

TEST(CodedMomentsTest, AreRefusedWhereNumbersAreNeeded) {
    for (const char* reset : {"magnitude", "random"}) {
        Config config = tiny_config({"--method.name=relora", std::string("--method.reset=") + reset});
        EXPECT_NO_THROW(validate_run(config, 1));
        config.optim.state_bits = "8";
        EXPECT_CONTAINS(test::message_of<UserError>([&] { validate_run(config, 1); }),
                        "with optim.state_bits = 8 (it keeps some moments by their numbers");
    }
}

}  // namespace
}  // namespace switchyard

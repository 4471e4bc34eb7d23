// RANKS: 1 2 3 4
// optim.state_bits = 8 in whole runs: every method takes it, losses and codes are those of one process on every
// layout, files hold codes and scales and go from layout to layout without a change, and the loss stays near
// that of 32 bits. Rows are cut over tp where blocks of 256 are not, and where three ranks share one.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "methods/registry.hpp"
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
    constexpr int num_steps = 12;
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
        EXPECT_LT(losses.back(), losses.front());
        const testing::WholeState state = testing::whole_state(run.state());
        for (const auto& [name, values] : state) {
            const test::Values& other = of_one.at(name);
            if (is_codes(name)) EXPECT_EQ(values, other) << name;
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
    const int num_steps = is_gpu ? 2 : 4;
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

// RANKS: 1 2 3 4
// optim.state_bits = 8 in whole runs: every method takes it, losses and codes are those of one process on
// every layout, files hold codes and scales and go from layout to layout without a change, and the loss stays
// near that of 32 bits. Rows are cut over tp where blocks of 256 are not, and where three ranks share one.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "methods/registry.hpp"
#include "reference/moment_codes.hpp"
#include "reference/switchlora.hpp"
#include "support/dense_model.hpp"
#include "support/layouts.hpp"
#include "support/methods.hpp"
#include "support/tiny_run.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

constexpr const char* elsewhere = "tests/regression/test_back_ends.py compares every layout with the CPU's";

std::vector<std::string> arguments_of(const std::string& method) {
    std::vector<std::string> all = testing::calm_settings(method, 2);
    all.insert(all.end(), {"--optim.state_bits=8", "--optim.eps=1e-4", "--optim.lr=0.004", "--data.seq_len=4",
                           "--model.num_layers=1"});
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

int num_ranks() {
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    return ranks;
}

class CodedMoments : public ::testing::TestWithParam<std::string> {};

/// A state in a file.
class File {
  public:
    File(std::string folder, const char* name) : path_(std::move(folder) + "/" + name) {}
    const std::string& path() const { return path_; }
    void save(TinyRun& run) const {
        CheckpointWriter writer(run.state().context.topology.world, path_);
        StateIo io(writer);
        run.state().visit(io);
        writer.commit();
    }
    void load(TinyRun& run, std::int64_t step) const {
        const CheckpointReader reader(run.state().context.topology.world, path_);
        StateIo io(reader);
        run.state().step = step;
        run.state().visit(io);
    }
    /// Row scales are computed anew, with sums in the order of a layout.
    void expect_identical(const File& other) const {
        for (const Difference& d : diff_files(path_, other.path_, 0))
            if (!d.path.ends_with(".row_scale")) ADD_FAILURE() << path_ << ": " << d.path << " " << d.text;
    }

  private:
    std::string path_;
};

void expect_codes(const testing::WholeState& state, const testing::WholeState& expected) {
    bool any = false;
    for (const auto& [name, values] : expected) {
        const test::Values& here = state.at(name);
        if (name.ends_with("_codes")) {
            EXPECT_EQ(here, values) << name;
            any = true;
        }
        if (!name.ends_with("_scales")) continue;
        ASSERT_EQ(here.size(), values.size()) << name;
        const double largest = *std::max_element(values.begin(), values.end());
        for (std::size_t i = 0; i < values.size(); ++i)
            ASSERT_NEAR(here[i], values[i], 1e-9 * largest) << name << " " << i;
    }
    EXPECT_TRUE(any);
}

/// Losses and codes are those of one process. A file of one process is read and written on a layout, and that
/// of a layout in one process, without a change; a run goes on from its own file bit for bit.
TEST_P(CodedMoments, AreTheSameOnEveryLayout) {
    const bool is_gpu = backend::processor().is_gpu;
    const std::string method = GetParam();
    if (is_gpu && method != "switchlora" && method != "apollo")
        GTEST_SKIP() << "a method with slots and one with moments of its own width show it; " << elsewhere;
    constexpr int num_steps = 2;
    std::vector<std::string> tiny = arguments_of(method);
    tiny.push_back("--optim.min_8bit_size=0");
    const Config config = is_gpu ? tiny_config(tiny) : wide_config(method);
    const test::TemporaryDirectory folder;
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    const std::string shared = broadcast(world, folder.path());
    const File of_one(shared, "one.h5"), read(shared, "read.h5"), of_many(shared, "many.h5"),
        back(shared, "back.h5");
    const Topology one = testing::serial();
    std::vector<double> expected(num_steps + 1);
    testing::WholeState codes;
    if (world.rank() == 0) {
        TinyRun run(config, one);
        expected = run.losses(num_steps);
        of_one.save(run);
        codes = testing::stored_state(of_one.path());
        expected.push_back(run.step().loss);
    }
    MPI_Bcast(expected.data(), num_steps + 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    testing::for_each_layout(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        std::vector<double> losses = run.losses(num_steps);
        of_many.save(run);
        if (world.rank() == 0) expect_codes(testing::stored_state(of_many.path()), codes);
        losses.push_back(run.step().loss);
        const double next = run.step().loss;  // the first that the moments in the file have made
        for (int step = 0; step <= num_steps; ++step)
            EXPECT_NEAR(losses[step], expected[step], 1e-10 * expected[step]) << "step " << step;

        TinyRun other(here, topology);
        of_one.load(other, num_steps);
        read.save(other);
        of_many.load(other, num_steps);
        EXPECT_EQ(other.losses(2), (std::vector{losses.back(), next}))
            << "bit for bit on the layout that wrote the file";
        if (world.rank() == 0) {
            of_one.expect_identical(read);
            TinyRun alone(config, one);
            of_many.load(alone, num_steps);
            back.save(alone);
            of_many.expect_identical(back);
        }
        barrier(world);
    });
}

TEST_P(CodedMoments, TheLossStaysNearThatOf32Bits) {
    if (backend::processor().is_gpu) GTEST_SKIP() << elsewhere;
    if (num_ranks() > 1) GTEST_SKIP() << "on one rank; the others have its losses";
    const Topology one = testing::serial();
    const auto mean_of_last = [&](const char* bits) {
        std::vector<std::string> all = arguments_of(GetParam());
        all.insert(all.end(), {std::string("--optim.state_bits=") + bits, "--optim.min_8bit_size=0",
                               "--optim.eps=1e-8", "--run.dtype=f32", "--run.steps=80"});
        if (GetParam() == "relora") all.push_back("--method.merge_interval=10");
        const std::vector<double> losses = TinyRun(tiny_config(all), one).losses(80);
        EXPECT_LT(losses.back(), 0.95 * losses.front());
        double sum = 0;
        for (int i = 70; i < 80; ++i) sum += losses[static_cast<std::size_t>(i)];
        return sum / 10;
    };
    const double wide = mean_of_last("32");
    EXPECT_NEAR(mean_of_last("8"), wide, 0.005 * wide);
}

/// Dense rows, slots, transposed ones of a projection, and moments of a width of the method's own.
const std::vector<std::string> kinds{"full", "switchlora", "galore", "apollo"};
INSTANTIATE_TEST_SUITE_P(Methods, CodedMoments, ::testing::ValuesIn(kinds), testing::name_of_method);
INSTANTIATE_TEST_SUITE_P(OtherMethods, CodedMoments, ::testing::ValuesIn(testing::all_methods(kinds)),
                         testing::name_of_method);

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
    const int num_steps = backend::processor().is_gpu ? 2 : 3;
    if (num_ranks() > 1) GTEST_SKIP() << "on one rank; the others have its codes";
    std::map<std::string, reference::Trained> trained;
    {
        testing::DenseModel model([&] {
            Config wide = config;
            wide.optim.state_bits = "32";
            return wide;
        }());
        for (Parameter* p : model.parameters()) {
            reference::Trained& x =
                trained[p->shard.name] = {static_cast<int>(p->shard.rows), static_cast<int>(p->shard.cols)};
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
    const Topology one = testing::serial();
    TinyRun run(config, one);
    run.losses(num_steps);
    const testing::WholeState state = testing::whole_state(run.state());
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
                                  scales[static_cast<std::size_t>(i / x.cols * blocks + i % x.cols / 256)]);
            expect(path, *numbers, decoded);
        }
    }
}

TEST(CodedMomentsTest, AreForPairsOfMomentsOfLargeTensorsAlone) {
    testing::for_each_layout(wide_config("muon"), [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (const OwnedParameter& owned : run.state().optimizer.owned()) {
            const Parameter& p = owned.parameter();
            EXPECT_EQ(owned.coded(), p.role == ParameterRole::embedding || p.role == ParameterRole::head)
                << p.shard.name << ": norms are small, and muon's momentum is no pair";
        }
        const std::vector<std::string> notes = run.state().optimizer.notes();
        ASSERT_EQ(notes.size(), 1u);
        EXPECT_CONTAINS(notes[0], "other ones for 7 tensors: these stay at 32 bits, ");
    });
    for (const auto& [least, coded] : {std::pair{"13992", true}, {"13993", false}}) {  // 53 x 264
        const Topology one = testing::serial();
        TinyRun run(wide_config("full", {std::string("--optim.min_8bit_size=") + least}), one);
        EXPECT_TRUE(run.state().optimizer.notes().empty());
        for (const OwnedParameter& owned : run.state().optimizer.owned())
            if (owned.parameter().role == ParameterRole::embedding) {
                EXPECT_EQ(owned.coded(), coded) << least;
            }
    }
}

TEST(CodedMomentsTest, TakeAQuarterOfTheMemory) {
    const Topology one = testing::serial();
    const auto moments = [&](const char* bits) {
        TinyRun run(wide_config("full", {std::string("--optim.state_bits=") + bits, "--run.dtype=f32"}), one);
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

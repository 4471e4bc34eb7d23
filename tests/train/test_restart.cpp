// RANKS: 1 2 3 4
// A checkpoint does not depend on the layout: read on more ranks or fewer and saved again, it is the same
// file. The run goes on as it would have, bit for bit on the layout that wrote the file. The first k ranks of
// the test stand for a launch on k ranks.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/processor.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "saving/checkpoints.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {
namespace restart_test {

using testing::tiny_config;
using testing::TinyRun;

struct Layout {
    int ranks = 1, tp = 1;
    bool shard_frozen = false, rotate = true;
    std::string text() const {
        return fmt::format("dp {} x tp {}{}{}", ranks / tp, tp, shard_frozen ? ", shard_frozen" : "",
                           rotate ? "" : ", no rotation");
    }
};

/// Layouts in the order in which a state passes through them, from 2 x 2 back to 2 x 2, with the options of
/// [parallel] on and off.
std::vector<Layout> layouts_on(int ranks) {
    const std::vector<Layout> all{{4, 2},       {4, 4, true}, {4, 1, true, false},
                                  {3, 1, true}, {3, 3},       {2, 2},
                                  {2, 1, true}, {1, 1},       {4, 2, true}};
    std::vector<Layout> possible;
    for (const Layout& layout : all)
        if (layout.ranks <= ranks) possible.push_back(layout);
    return possible;
}

struct Case {
    std::string name;
    std::vector<std::string> arguments;
    double tolerance;  // of losses between layouts, relative
};

/// With the paper's freezing: at any step about half of the slots are frozen on one side.
std::vector<std::string> switching(const char* order) {
    return {"--method.name=switchlora", "--method.switch_interval=6", "--method.freeze_steps=3",
            "--method.switch_ratio=1", std::string("--method.switch_order=") + order};
}

/// Merges after steps 6 and 12: the second is made by the resumed run.
std::vector<std::string> merging(const char* reset) {
    return {"--method.name=relora",
            "--method.merge_interval=6",
            "--method.restart_warmup=2",
            "--method.prune_ratio=0.8",
            "--method.alpha=6",
            "--optim.lr=0.004",
            std::string("--method.reset=") + reset};
}

/// Sums in another order: 5e-6 in f32; in bf16, where a value may round to its neighbour 2^-8 away, 8 times
/// the largest difference seen, 6e-5.
std::vector<Case> cases() {
    std::vector<Case> all;
    const auto add = [&](const std::string& name, std::vector<std::string> arguments, const char* dtype,
                         double tolerance) {
        arguments.insert(arguments.end(), {std::string("--run.dtype=") + dtype, "--model.num_layers=1"});
        all.push_back({name, std::move(arguments), tolerance});
    };
    add("full_f32", {"--method.name=full"}, "f32", 5e-6);
    add("full_bf16", {"--method.name=full"}, "bf16", 5e-4);
    add("lora_f32", {"--method.name=lora"}, "f32", 5e-6);
    add("lora_bf16", {"--method.name=lora"}, "bf16", 5e-4);
    add("dora_f32", {"--method.name=dora"}, "f32", 5e-6);
    add("dora_bf16", {"--method.name=dora", "--method.norm_gradient=exact"}, "bf16", 5e-4);
    add("sora_f32", {"--method.name=sora", "--method.threshold=9"}, "f32", 5e-6);
    add("sora_bf16", {"--method.name=sora", "--method.threshold=9"}, "bf16", 5e-4);
    add("ring_f32", switching("ring"), "f32", 5e-6);
    add("ring_bf16", switching("ring"), "bf16", 5e-4);
    add("random_f32", switching("random"), "f32", 5e-6);
    add("random_bf16", switching("random"), "bf16", 5e-4);
    add("ring_f64", switching("ring"), "f64", 1e-11);
    add("relora_bf16", merging("magnitude"), "bf16", 5e-4);
    add("relora_f64", merging("magnitude"), "f64", 1e-11);
    add("relora_random_f64", merging("random"), "f64", 1e-11);
    // The files are written between a range and the basis that follows it, and between other steps.
    for (const char* basis : {"subspace", "random"})
        for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-10}})
            add(fmt::format("galore_{}_{}", basis, dtype),
                {"--method.name=galore", "--method.update_interval=3", "--optim.eps=1e-4",
                 std::string("--method.basis=") + basis},
                dtype, tolerance);
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-10}})  // 2 or 3 turns a step
        add(fmt::format("galore_svd_{}", dtype),
            {"--method.name=galore", "--method.update_interval=3", "--optim.eps=1e-4", "--method.basis=svd"},
            dtype, tolerance);
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 5e-4}, {"f64", 1e-11}})
        add(fmt::format("muon_{}", dtype), {"--method.name=muon"}, dtype, tolerance);
    // The projections are drawn anew after step 9. Rank 12 is as wide as some stored weights on two tp ranks.
    const auto scaling = [&](const std::string& name, const char* dtype, double tolerance,
                             std::vector<std::string> more) {
        more.insert(more.end(), {"--method.name=apollo", "--method.update_interval=9", "--optim.eps=1e-4"});
        add("apollo_" + name + "_" + dtype, std::move(more), dtype, tolerance);
    };
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-10}})
        scaling("channel", dtype, tolerance, {"--method.rank=12", "--method.projection=paper"});
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-11}})
        for (const char* name : {"riemannian", "melora"})  // minis of 12, which some layouts cut
            add(fmt::format("{}_{}", name, dtype),
                {std::string("--method.name=") + name, "--method.alpha=6", "--optim.eps=1e-4",
                 "--optim.lr=0.004"},
                dtype, tolerance);
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-10}})
        add(fmt::format("flatlora_{}", dtype),
            {"--method.name=flatlora", "--method.noise=0.5", "--method.alpha=6", "--optim.lr=0.004"}, dtype,
            tolerance);
    for (const auto& [dtype, tolerance] : {std::pair{"f32", 2e-5}, {"bf16", 2e-3}, {"f64", 1e-10}})
        add(fmt::format("loft_{}", dtype), {"--method.name=loft", "--optim.eps=1e-4", "--optim.lr=0.004"},
            dtype, tolerance);
    // Every row is less than a block, which all tp ranks share.
    const std::vector<std::string> coded{"--optim.state_bits=8", "--optim.min_8bit_size=0"};
    std::vector<std::string> coded_ring = switching("ring");
    coded_ring.insert(coded_ring.end(), coded.begin(), coded.end());
    add("coded_ring_f64", coded_ring, "f64", 1e-10);
    for (const auto& [dtype, tolerance] : {std::pair{"bf16", 2e-3}, {"f64", 1e-10}})
        add(fmt::format("pclora_{}", dtype),
            {"--method.name=pclora", "--method.decay_steps=10", "--method.alpha=6", "--optim.lr=0.004"}, dtype,
            tolerance);
    scaling("tensor", "f32", 2e-5, {"--method.scale_by=tensor", "--optim.lr=0.001"});
    return all;
}

class Restart : public ::testing::TestWithParam<Case> {
  protected:
    Restart() : world(Comm::duplicate(MPI_COMM_WORLD)) { shared = broadcast(world, folder.path()); }
    ~Restart() override { barrier(world); }
    std::string file(const std::string& name) const { return shared + "/" + name; }

    /// work(run) on the layout's ranks; the others wait.
    template <class Work>
    void launch(const std::vector<std::string>& arguments, const Layout& layout, Work work) {
        const bool takes_part = world.rank() < layout.ranks;
        const Comm comm = world.split(takes_part, world.rank());
        if (takes_part) {
            Config config = tiny_config(arguments);
            config.parallel = {layout.tp, layout.shard_frozen, layout.rotate};
            const Topology topology = Topology::create(comm, layout.tp);
            config.data.micro_batch =
                testing::micro_batch_of_few_passes(config.data.global_batch, topology.dp_size());
            TinyRun run(config, topology);
            work(run);
        }
        barrier(world);
    }
    static void save(TinyRun& run, const std::string& path) {
        CheckpointWriter writer(run.state().context.topology.world, path);
        StateIo io(writer);
        writer.attribute("/", "step", run.state().step);
        writer.attribute("/", "dtype", run.config().run.dtype);
        run.state().visit(io);
        writer.commit();
    }
    static void load(TinyRun& run, const std::string& path) {
        const CheckpointReader reader(run.state().context.topology.world, path);
        StateIo io(reader);
        run.state().step = std::get<std::int64_t>(reader.attribute("/", "step"));
        run.state().visit(io);
    }
    /// Expects, on rank 0, that two files are the same to the last bit. `recomputed`: a row scale may differ,
    /// because it is computed from what is loaded, with sums in the order of another layout.
    void expect_identical(const std::string& a, const std::string& b, const std::string& what,
                          bool recomputed = false) {
        if (world.rank() != 0) return;
        for (const Difference& d : diff_files(file(a), file(b), 0))
            if (!recomputed || !d.path.ends_with(".row_scale"))
                ADD_FAILURE() << what << ": " << d.path << " " << d.text;
        EXPECT_GT(file_contents(file(a)).datasets.size(), 20u);
    }

    test::TemporaryDirectory folder;
    Comm world;
    std::string shared;
};

std::vector<std::int64_t> table_of(const CheckpointReader& reader, const std::string& path) {
    std::vector<std::int64_t> table(static_cast<std::size_t>(reader.shape(path)[0]));
    const auto size = static_cast<std::int64_t>(table.size());
    reader.read(path, {"", {size}, 0, 0, size, 1, 0}, HostBlock{table.data(), DType::i64, {size}});
    return table;
}

/// Number of slots that stay frozen for further updates. A table holds two pointers, then the candidates and
/// the freeze counters of all slots of A, then those of B.
int frozen_slots(const std::string& path) {
    const CheckpointReader reader(Comm(), path);
    int frozen = 0;
    for (const DatasetInfo& d : file_contents(path).datasets) {
        if (!d.path.ends_with("/switch")) continue;
        const std::vector<std::int64_t> table = table_of(reader, d.path);
        const std::size_t slots = (table.size() - 2) / 4;
        for (std::size_t slot = 0; slot < slots; ++slot)
            frozen += (table[2 + slots + slot] > 0) + (table[2 + 3 * slots + slot] > 0);
    }
    return frozen;
}

bool switches(const Case& c) {
    return c.arguments[0] == "--method.name=switchlora";
}

TEST_P(Restart, ContentIsTheSameOnEveryLayout) {
    if (world.size() == 1) GTEST_SKIP() << "one rank has one layout, below";
    const Case& c = GetParam();
    const std::vector<Layout> layouts = layouts_on(world.size());
    std::vector<double> expected;
    launch(c.arguments, layouts[0], [&](TinyRun& run) {
        run.losses(7);
        save(run, file("0.h5"));
        expected = run.losses(2);
    });
    if (world.rank() == 0) {
        EXPECT_EQ(verify_file(file("0.h5")), std::vector<std::string>{});
        EXPECT_EQ(frozen_slots(file("0.h5")) > 0, switches(c))
            << "no frozen slot: the test shows less than it says";
    }
    for (std::size_t i = 0; i < layouts.size(); ++i) {
        const std::string from = fmt::format("{}.h5", i), to = fmt::format("{}.h5", i + 1);
        launch(c.arguments, layouts[i], [&](TinyRun& run) {
            load(run, file(from));
            EXPECT_EQ(run.state().step, 7);
            save(run, file(to));
            const std::vector<double> losses = run.losses(2);
            for (std::size_t step = 0; step < losses.size() && world.rank() == 0; ++step)
                EXPECT_NEAR(losses[step], expected[step], c.tolerance * expected[step])
                    << layouts[i].text() << ", step " << 7 + step;
        });
        expect_identical("0.h5", to, layouts[i].text(), true);
    }
}

/// On the layout that wrote the file, with steps before and after that switch.
TEST_P(Restart, SameLayoutGoesOnBitForBit) {
    const Case& c = GetParam();
    const bool enough = std::string(c.name) == "ring_f32" || std::string(c.name) == "random_bf16";
    if (world.size() > 2 && !enough) return;  // more ranks take longer and show nothing new
    for (const Layout& layout : layouts_on(world.size())) {
        if (layout.ranks < world.size() || (layout.tp == 2 && layout.shard_frozen)) continue;
        std::vector<double> expected;
        launch(c.arguments, layout, [&](TinyRun& run) {
            run.losses(7);
            save(run, file("half.h5"));
            expected = run.losses(6);
            save(run, file("whole.h5"));
        });
        launch(c.arguments, layout, [&](TinyRun& run) {
            load(run, file("half.h5"));
            EXPECT_EQ(run.losses(6), expected) << layout.text();
            save(run, file("resumed.h5"));
        });
        expect_identical("whole.h5", "resumed.h5", layout.text());
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, Restart, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

/// run.init_from: weights of one method into another, on another layout.
class InitFromCheckpoint : public Restart {};

std::int64_t non_zero_moments(const std::string& path) {
    const CheckpointReader reader(Comm(), path);
    std::int64_t count = 0;
    for (const DatasetInfo& d : file_contents(path).datasets) {
        if (!d.path.starts_with("/optimizer/") || d.dtype != "f64") continue;
        const Shape shape = reader.shape(d.path);
        std::vector<double> values(static_cast<std::size_t>(shape.size()));
        reader.read(d.path, {"", shape, 0, 0, shape[0], shape.rank() == 2 ? shape[1] : 1, 0},
                    HostBlock{values.data(), DType::f64, shape});
        count += std::count_if(values.begin(), values.end(), [](double x) { return x != 0; });
    }
    return count;
}

TEST_F(InitFromCheckpoint, AnyMethodKeepsTheFunctionOfAnyOther) {
    const std::vector<std::vector<std::string>> methods{
        {"--method.name=full"},   {"--method.name=lora"},
        switching("ring"),        merging("magnitude"),
        {"--method.name=dora"},   {"--method.name=sora", "--method.threshold=9"},
        {"--method.name=galore"}, {"--method.name=muon"},
        {"--method.name=apollo"}, {"--method.name=riemannian"},
        {"--method.name=melora"}, {"--method.name=flatlora", "--method.noise=0.5"},
        {"--method.name=loft"},   {"--method.name=pclora", "--method.bias=false"}};
    const std::vector<Layout> layouts = layouts_on(world.size());
    for (std::size_t from = 0; from < methods.size(); ++from) {
        double expected = 0;
        launch(methods[from], layouts[0], [&](TinyRun& run) {
            run.losses(7);
            save(run, file("source.h5"));
            run.state().step = 0;
            expected = run.step().loss;  // of the first batch under the weights of step 7
        });
        for (std::size_t to = 0; to < methods.size(); ++to) {
            // What a file says of its function does not depend on who reads it: each method is a source and a target
            // of two others, emulated of one.
            const std::size_t next = (to + methods.size() - from) % methods.size();
            if (next != 1 && (next != 5 || backend::processor().is_gpu)) continue;
            const Layout& layout = layouts[(1 + from + to) % layouts.size()];
            launch(methods[to], layout, [&](TinyRun& run) {
                TrainState& s = run.state();
                s.initialise_from(CheckpointReader(s.context.topology.world, file("source.h5")));
                EXPECT_EQ(s.step, 0);
                const double loss = run.step().loss;
                // 40 eps of sums over 37 products and the merge of factors with W
                if (world.rank() == 0) {
                    EXPECT_NEAR(loss, expected, 1e-13 * expected)
                        << methods[from][0] << " into " << methods[to][0] << ", " << layout.text();
                }
            });
        }
    }
}

TEST_F(InitFromCheckpoint, TakesNothingButWeights) {
    const std::vector<Layout> layouts = layouts_on(world.size());
    launch(switching("ring"), layouts[0], [&](TinyRun& run) {
        run.losses(7);
        save(run, file("source.h5"));
    });
    launch(switching("ring"), layouts.back(), [&](TinyRun& run) {
        save(run, file("fresh.h5"));
        run.state().initialise_from(CheckpointReader(run.state().context.topology.world, file("source.h5")));
        save(run, file("started.h5"));
    });
    if (world.rank() != 0) return;
    EXPECT_GT(non_zero_moments(file("source.h5")), 0);
    EXPECT_EQ(non_zero_moments(file("started.h5")), 0);
    // Factors, banks, tables and counters are those of a fresh run; weights and norms are not.
    for (const Difference& d : diff_files(file("fresh.h5"), file("started.h5"), 0))
        EXPECT_TRUE(d.path.starts_with("/model/") && d.path.ends_with(".weight")) << d.path << " " << d.text;
}

/// The newest file that verifies is taken. One that does verify and still cannot be read is an error, not
/// damage.
TEST_F(InitFromCheckpoint, OnlyDamageSetsAFileAside) {
    launch({"--method.name=lora"}, layouts_on(world.size())[0], [&](TinyRun& run) {
        TrainState& state = run.state();
        const Comm& ranks = state.context.topology.world;
        Checkpoints checkpoints(ranks, shared, run.config(), {"tokens", "tokenizer"});
        const auto restore = [&] { return checkpoints.restore(state, [](const auto&, const auto&) {}); };
        EXPECT_EQ(restore(), std::nullopt);
        run.losses(2);
        const std::string whole = checkpoints.save(state, 0).path, other = checkpoint_path(shared, 3);
        state.step = 0;
        EXPECT_EQ(restore(), whole);
        EXPECT_EQ(state.step, 2);

        const auto write_other = [&](std::int64_t version) {
            CheckpointWriter writer(ranks, other);
            writer.attribute("/", "format_version", version);
            for (const char* key : {"step", "tokens_seen"}) writer.attribute("/", key, std::int64_t{3});
            for (const char* key : {"config", "dtype"}) writer.attribute("/", key, std::string());
            writer.attribute("/data", "next_sample", std::int64_t{0});
            for (const char* key : {"token_fingerprint", "tokenizer_fingerprint"})
                writer.attribute("/data", key, std::string());
            writer.commit();
        };
        write_other(2);
        EXPECT_CONTAINS(test::message_of<UserError>(restore),
                        "has format version 2 (this program reads version 1)");
        write_other(1);
        EXPECT_CONTAINS(test::message_of<UserError>(restore), other + " has no dataset /");
        EXPECT_EQ(test::message_of<UserError>([&] {
                      checkpoints.restore(state,
                                          [](const auto&, const auto&) { throw UserError("refused"); });
                  }),
                  "refused");
        EXPECT_EQ(list_checkpoints(shared).front().second, other);
        barrier(ranks);

        if (ranks.rank() == 0) std::filesystem::resize_file(other, std::filesystem::file_size(other) - 1);
        barrier(ranks);
        EXPECT_EQ(restore(), whole);
        EXPECT_TRUE(std::filesystem::exists(other + ".damaged"));
        EXPECT_FALSE(std::filesystem::exists(other));
        barrier(ranks);
        if (ranks.rank() == 0) std::filesystem::resize_file(whole, 1000);
        barrier(ranks);
        for (int launch : {1, 2})  // the second finds them set aside
            EXPECT_CONTAINS(test::message_of<UserError>(restore),
                            "all 2 checkpoints in `" + shared + "` are damaged")
                << launch;
    });
}

}  // namespace restart_test
}  // namespace switchyard

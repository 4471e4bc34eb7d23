// RANKS: 1 2 4
// What goes wrong on one rank is the same line on all; the collectives of every layout; the shapes of
// products.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "methods/registry.hpp"
#include "selftest/compute.hpp"
#include "selftest/files.hpp"
#include "selftest/network.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard::selftest {
namespace {

const std::vector<Setting*>& every_layout() {
    struct Layout {
        Config config;
        Topology topology;
        Setting setting;
        Layout(const Config& c, const Comm& world)
            : config(c),
              topology(Topology::create(world, c.parallel.tp)),
              setting(make_setting(config, topology)) {}
    };
    static const std::vector<Setting*> all = [] {
        const Comm world = Comm::duplicate(MPI_COMM_WORLD);
        std::vector<Setting*> settings;
        for (int tp = 1; tp <= world.size(); ++tp) {
            if (world.size() % tp != 0) continue;
            Config config =
                parse_config("", "",
                             {"--model.hidden_size=48", "--model.num_heads=4", "--model.num_kv_heads=4",
                              "--model.ffn_size=37", "--model.num_layers=2", "--model.vocab_size=65",
                              "--data.seq_len=32", "--data.micro_batch=2", "--run.dtype=f32",
                              "--method.rank=6", "--parallel.tp=" + std::to_string(tp)},
                             method_options())
                    .config;
            config.data.global_batch = world.size() / tp * config.data.micro_batch;
            resolve_auto(config);
            validate_run(config, world.size());
            settings.push_back(&(new Layout(config, world))->setting);  // as long as the process
        }
        return settings;
    }();
    return all;
}

TEST(Lines, AProblemOfOneRankIsThatOfAll) {
    const Setting& setting = *every_layout()[0];
    const Comm& world = setting.topology.world;
    EXPECT_EQ(problem_of(setting, [] {}), "");
    const auto fails_last = [&] {
        if (world.rank() == world.size() - 1) throw UserError("broken");
    };
    const std::string text = problem_of(setting, fails_last);
    EXPECT_CONTAINS(text, "broken");
    if (world.size() > 1) {
        EXPECT_CONTAINS(text, "rank " + std::to_string(world.size() - 1) + " (");
    }
    EXPECT_NE(problem_of(setting, [] { throw std::runtime_error(""); }), "");

    const Timing timing = time_of(setting, fails_last);
    EXPECT_CONTAINS(timing.problem, "broken");
    const Line line = rate_line(setting, {.section = "products", .name = "x"}, timing, 1, "FLOP/s");
    EXPECT_EQ(line.verdict, Verdict::failed);
    EXPECT_CONTAINS(line.advice, "broken");
}

TEST(Lines, ASlowRankIsNamed) {
    const Setting& setting = *every_layout()[0];
    const int ranks = setting.topology.world.size();
    Timing timing;
    for (int rank = 0; rank < ranks; ++rank) timing.seconds.push_back(rank == ranks - 1 ? 4.0 : 1.0);
    const Line line = rate_line(setting, {.section = "memory", .name = "x"}, timing, 8, "B/s");
    EXPECT_EQ(line.numbers["bytes_per_s"]["least"], 2);
    EXPECT_EQ(line.numbers["bytes_per_s"]["least_rank"], ranks - 1);
    EXPECT_EQ(line.verdict, ranks == 1 ? Verdict::ok : Verdict::slow);
    if (ranks > 1) {
        EXPECT_CONTAINS(line.advice, setting.rank_text(ranks - 1));
    }
}

TEST(Lines, CollectivesGiveTheRightValuesInEveryGroup) {
    for (const Setting* setting : every_layout()) {
        const Topology& t = setting->topology;
        const int groups = (t.tp_size() > 1) + (t.dp_size() > 1) + (t.tp_size() > 1 && t.dp_size() > 1);
        const std::vector<Line> lines = collective_lines(*setting);
        EXPECT_EQ(lines.size(), static_cast<std::size_t>(groups * 6));
        for (const Line& line : lines) {
            EXPECT_NE(line.verdict, Verdict::failed) << line.name << ": " << line.advice;
            const double payload = line.numbers["payload_bytes"], p = line.numbers["group_ranks"],
                         factor = line.numbers["operation"] == "all-reduce" ? 2 : 1;
            EXPECT_EQ(line.numbers["sent_bytes_per_rank"], factor * payload * (p - 1) / p) << line.name;
        }
    }
}

TEST(Lines, ProductsOfAnAdaptedModel) {
    for (const Setting* setting : every_layout()) {
        const std::int64_t tp = setting->topology.tp_size(), local = 48 / tp, ffn = (37 / tp + 16) / 16 * 16;
        const std::vector<ProductShape> shapes = product_shapes(*setting, 1e12);
        const auto count = [&](const std::string& pass, std::int64_t m, std::int64_t n, std::int64_t k) {
            return std::count_if(shapes.begin(), shapes.end(), [&](const ProductShape& s) {
                return s.pass == pass && s.m == m && s.n == n && s.k == k;
            });
        };
        EXPECT_EQ(count("forward", 64, local, 48), 1) << "q, k, v at tp " << tp;
        EXPECT_EQ(count("forward", 64, ffn, 48), 1) << "gate, up at tp " << tp;
        EXPECT_EQ(count("forward", 64, 48, ffn), 1) << "down at tp " << tp;
        EXPECT_EQ(count("weight gradient", local, 48, 64), 0) << "frozen weights have no gradient";
        EXPECT_EQ(count("weight gradient", 6, 48, 64), 1) << "a factor at tp " << tp;
        for (const ProductShape& s : shapes)
            for (const ProductShape& other : shapes)
                EXPECT_TRUE(&s == &other || s.pass != other.pass || !s.same_work(other)) << s.name;
        // The fewest tokens that are measured.
        for (const ProductShape& s : product_shapes(*setting, 1))
            EXPECT_EQ(s.pass == "weight gradient" ? s.k : std::min(s.m, s.n) <= 16 ? 16 : 0, 16) << s.name;
    }
}

TEST(Lines, FilesAreWrittenReadAndRemoved) {
    Setting& setting = *every_layout()[0];
    const Comm& world = setting.topology.world;
    std::optional<test::TemporaryDirectory> folder;
    if (world.rank() == 0) folder.emplace();
    Config config = setting.config;
    const std::string path = broadcast(world, folder ? folder->path() : "");
    config.run.dir = path + "/not/yet";
    config.io.window = 64 << 10;
    const Setting here{config, setting.topology, setting.dtype, setting.hosts};
    const std::vector<Line> lines = file_lines(here);
    ASSERT_EQ(lines.size(), 2u);
    for (const Line& line : lines) {
        EXPECT_NE(line.verdict, Verdict::failed) << line.advice;
        EXPECT_EQ(line.numbers["folder"], path);
        EXPECT_EQ(line.numbers["file_bytes"], 4.0 * world.size() * (64 << 10));
    }
    EXPECT_TRUE(std::filesystem::is_empty(path));
    barrier(world);

    config.run.dir = "/proc/self/run";  // where nobody can write, root neither
    const std::vector<Line> refused = file_lines(here);
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].verdict, Verdict::failed);
    EXPECT_CONTAINS(refused[0].advice, "choose another run.dir");
}

}  // namespace
}  // namespace switchyard::selftest

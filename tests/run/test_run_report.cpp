// What a run reports: the record of a step, the lines at its start, predicted beside measured numbers at its
// end. All numbers in the inputs are different.
#include <gtest/gtest.h>

#include <iterator>
#include <sstream>

#include "run/environment.hpp"
#include "run/report.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

constexpr double kib = 1024;

/// 400 tokens in half a second at 1000 FLOP per token (dense) on a machine of 4 MFLOP/s.
RunScale scale_of() {
    return {.tokens_per_step = 400, .flops_per_token = {.dense = 1000, .executed = 750}, .peak_flops = 4e6};
}

void wait_once(PhaseTimer& timer) {
    timer.waits().begin();
    timer.waits().end();
}

StepFigures figures_of(std::int64_t step) {
    StepFigures x;
    x.step = step;
    x.result.loss = 3.25;
    x.result.grad_norm = 0.5;
    x.result.lr = 1e-3;
    x.result.method.vectors_switched = 6;
    x.result.method.moments_reset = 4;
    x.step_s = 0.5;
    x.sent.add(TrafficGroup::gradients, 2048);
    x.sent.add(TrafficGroup::moves, 12);
    return x;
}

std::vector<std::string> keys_of(const ordered_json& object) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(key);
    return keys;
}

TEST(StepRecordTest, HoldsWhatTheLogPromises) {
    const ordered_json record = step_record(figures_of(7), scale_of());
    EXPECT_EQ(keys_of(record),
              (std::vector<std::string>{"step", "tokens", "loss", "lr", "grad_norm", "step_s", "tokens_per_s",
                                        "mfu", "mfu_executed", "phases", "bytes", "vectors_switched",
                                        "moments_reset"}));
    EXPECT_EQ(record["step"], 7);
    EXPECT_EQ(record["tokens"], 2800);
    EXPECT_TRUE(record["tokens"].is_number_integer());
    EXPECT_EQ(record["loss"], 3.25);
    EXPECT_EQ(record["lr"], 1e-3);
    EXPECT_EQ(record["grad_norm"], 0.5);
    EXPECT_EQ(record["step_s"], 0.5);
    EXPECT_EQ(record["tokens_per_s"], 800);
    EXPECT_DOUBLE_EQ(record["mfu"], 0.2);
    EXPECT_DOUBLE_EQ(record["mfu_executed"], 0.15);
    EXPECT_EQ(record["bytes"], (ordered_json{{"gradients", 2048}, {"moves", 12}})) << "no zeros";
    EXPECT_EQ(record["vectors_switched"], 6);
    EXPECT_EQ(record["moments_reset"], 4);
}

TEST(StepRecordTest, ValidationLossAndResidualOnlyWhereThereIsOne) {
    StepFigures x = figures_of(7);
    x.val_loss = 2.5;
    x.result.method.residual = 1e-8;
    x.result.method.residual_of = "model.layers.0.mlp.up_proj";
    const ordered_json record = step_record(x, scale_of());
    EXPECT_EQ(record["val_loss"], 2.5);
    EXPECT_EQ(record["residual"], 1e-8);
    EXPECT_EQ(record["residual_of"], "model.layers.0.mlp.up_proj");
}

TEST(StepRecordTest, PartsOfTheObjectiveHaveTheirOwnFields) {
    StepFigures x = figures_of(7);
    EXPECT_FALSE(step_record(x, scale_of()).contains("objective"));
    x.result.method.objective = {{"penalty", 0.25}, {"distillation", 1.5}};
    const ordered_json record = step_record(x, scale_of());
    EXPECT_EQ(record["objective"], (ordered_json{{"penalty", 0.25}, {"distillation", 1.5}}));
    EXPECT_EQ(record["loss"], 3.25) << "the task's alone";
}

TEST(StepRecordTest, PhasesAreThoseOfAStepWithoutSaves) {
    StepFigures x = figures_of(7);
    x.phases.reset();
    wait_once(x.phases);  // the wait is moved to communication
    x.phases.lap(Phase::backward);
    wait_once(x.phases);
    x.phases.lap(Phase::optimizer);
    const ordered_json phases = step_record(x, scale_of())["phases"];
    EXPECT_EQ(keys_of(phases), (std::vector<std::string>{"data", "forward", "backward", "communication",
                                                         "optimizer", "switching"}));
    EXPECT_EQ(phases["communication"], x.phases.waits().seconds(0, 2));
    EXPECT_EQ(phases["backward"], x.phases.seconds(Phase::backward));
    EXPECT_EQ(phases["data"], 0);
}

TEST(RunTotalsTest, SumAllStepsAndKeepTheBytesOfThoseThatArePlanned) {
    RunTotals totals;
    StepFigures x = figures_of(max_planned_steps - 1);
    x.phases.reset();
    wait_once(x.phases);
    x.phases.lap(Phase::forward);
    for (int i = 0; i < 3; ++i, ++x.step) {
        totals.add(x);
        x.sent.add(TrafficGroup::moves, 1);
    }
    EXPECT_EQ(totals.steps, 3);
    EXPECT_EQ(totals.seconds, 1.5);
    EXPECT_EQ(totals.phase_s[static_cast<int>(Phase::communication)],
              3 * x.phases.seconds(Phase::communication));
    ASSERT_EQ(totals.sent.size(), 2u) << "steps 99 and 100 of those planned";
    EXPECT_EQ(totals.sent[1].bytes[static_cast<int>(TrafficGroup::moves)], 13);
}

/// A plan of five steps; step i sends 1024 (i + 1) bytes of gradients.
Plan plan_of() {
    Plan plan;
    plan.rank.memory.bytes[static_cast<int>(MemoryClass::frozen)] = 3 * kib;
    plan.rank.memory.bytes[static_cast<int>(MemoryClass::bank)] = 5 * kib;
    for (int step = 0; step < 5; ++step)
        plan.rank.steps.emplace_back().add(TrafficGroup::gradients, kib * (step + 1));
    return plan;
}

MeasuredMemory measured_memory() {
    MeasuredMemory measured;
    measured.arena.bytes[static_cast<int>(MemoryClass::frozen)] = 3 * kib;
    measured.arena.bytes[static_cast<int>(MemoryClass::gradients)] = 7 * kib;
    measured.process_bytes = 20 * kib;
    return measured;
}

/// The words of the line that begins with `name`; {} if there is none.
std::vector<std::string> columns_of(const std::vector<std::string>& lines, const std::string& name) {
    for (const std::string& line : lines) {
        if (!line.starts_with("  " + name + " ")) continue;
        std::istringstream rest(line.substr(name.size() + 2));
        return {std::istream_iterator<std::string>(rest), {}};
    }
    return {};
}

using Columns = std::vector<std::string>;

TEST(FinishLinesTest, MemoryPredictedBesideMeasured) {
    const auto lines = finish_lines(plan_of(), scale_of(), {}, measured_memory());
    EXPECT_EQ(columns_of(lines, "rank 0"), (Columns{"predicted", "measured"}));
    EXPECT_EQ(columns_of(lines, "memory, frozen"), (Columns{"3.00", "KiB", "3.00", "KiB"}));
    EXPECT_EQ(columns_of(lines, "memory, bank"), (Columns{"5.00", "KiB", "0", "B"}));
    EXPECT_EQ(columns_of(lines, "memory, gradients"), (Columns{"0", "B", "7.00", "KiB"}));
    EXPECT_EQ(columns_of(lines, "memory, arena"), (Columns{"8.00", "KiB", "10.0", "KiB"}));
    EXPECT_EQ(columns_of(lines, "memory, process less start"), (Columns{"8.00", "KiB", "20.0", "KiB"}));
    EXPECT_EQ(columns_of(lines, "memory, moments"), Columns{}) << "nobody has any";
    EXPECT_EQ(lines.size(), 6u) << "no step: nothing sent, no times";
    Plan of_a_gpu = plan_of();
    of_a_gpu.pinned_bytes = 24 * kib;
    MeasuredMemory pinned = measured_memory();
    pinned.pinned_bytes = 16 * kib;
    EXPECT_EQ(columns_of(finish_lines(of_a_gpu, scale_of(), {}, pinned), "memory, pinned on the host"),
              (Columns{"24.0", "KiB", "16.0", "KiB"}));
    EXPECT_TRUE(memory_line(of_a_gpu).ends_with("; of the host 24.0 KiB pinned"));
    MeasuredMemory unknown = measured_memory();
    unknown.process_bytes = 0;
    EXPECT_EQ(columns_of(finish_lines(plan_of(), scale_of(), {}, unknown), "memory, process less start"),
              (Columns{"8.00", "KiB", "-"}));
}

/// Two steps from step 2 on, as after a resume.
RunTotals two_steps() {
    RunTotals totals;
    totals.first_step = 2;
    totals.steps = 2;
    totals.seconds = 1;
    totals.phase_s[static_cast<int>(Phase::forward)] = 0.25;
    totals.phase_s[static_cast<int>(Phase::backward)] = 0.5;
    for (double bytes : {2.0, 4.0}) {
        totals.sent.emplace_back().add(TrafficGroup::gradients, kib * bytes);
        totals.sent.back().add(TrafficGroup::candidates, kib * bytes / 2);
    }
    return totals;
}

TEST(FinishLinesTest, BytesAreMeansOverTheStepsOfThisProcess) {
    const auto lines = finish_lines(plan_of(), scale_of(), two_steps(), measured_memory());
    EXPECT_EQ(columns_of(lines, "sent a step, gradients"), (Columns{"3.50", "KiB", "3.00", "KiB"}))
        << "steps 2 and 3 of the plan: 3 and 4 KiB";
    EXPECT_EQ(columns_of(lines, "sent a step, candidates"), (Columns{"0", "B", "1.50", "KiB"}));
    EXPECT_EQ(columns_of(lines, "sent a step, moves"), Columns{});
}

TEST(FinishLinesTest, TimeIsHeldAgainstTheProductsAlone) {
    const auto lines = finish_lines(plan_of(), scale_of(), two_steps(), measured_memory());
    // 750 FLOP x 400 tokens at 4 MFLOP/s.
    EXPECT_EQ(columns_of(lines, "step, products alone / all"), (Columns{"0.0750", "s", "0.5000", "s"}));
    ASSERT_GE(lines.size(), 2u);
    EXPECT_EQ(lines[lines.size() - 2],
              "  800 tokens/s, model FLOPs utilisation 0.200 dense, 0.150 executed (mean of 2 steps)");
    EXPECT_EQ(lines.back(), "  of the step: forward 25.0 %, backward 50.0 %");
}

TEST(StartLinesTest, SayLayoutModelMethodAndCost) {
    const Config config = testing::tiny_config({"--run.dtype=bf16", "--method.name=switchlora"});
    Plan plan;
    plan.ranks = 6, plan.dp = 3, plan.tp = 2;
    plan.parameters = {
        .embedding = 100, .head = 200, .norms = 30, .dense_linears = 0, .factors = 4000, .frozen = 70000};
    plan.merged_linears = 5, plan.unmerged_linears = 9;
    plan.checkpoint_bytes = 3 << 20;
    plan.tokens_per_step = 400;
    plan.flops_per_token = {.dense = 1000, .executed = 750};
    plan.notes = {"first", "second"};
    EXPECT_EQ(
        start_lines(config, plan, 4, 2.5e9),
        (std::vector<std::string>{
            "layout      6 ranks (dp 3 x tp 2), 4 threads each, bf16",
            "model       70.3 k parameters: hidden 24, 2 layers, 12 heads, feed-forward 37, vocabulary 53",
            "method      switchlora: 4.33 k trained (4.00 k in low-rank factors), 70.0 k frozen",
            "products    5 low-rank linears run merged, 9 unmerged",
            "rates       optim.lr 0.01, optim.dense_lr 0.01 (embedding, head, norms)",
            "checkpoint  3.00 MiB a file, up to 14.2 MiB of memory per rank while it is written in the "
            "background",
            "step        400 tokens, 300 kFLOP executed (400 kFLOP dense), products at 2.50 GFLOP/s here",
            "note        first", "note        second"}));
    plan.merged_linears = plan.unmerged_linears = 0;
    plan.notes.clear();
    EXPECT_EQ(start_lines(config, plan, 4, 2.5e9).size(), 6u) << "a full-rank run has no such products";
}

TEST(StartLinesTest, MemoryIsThatOfTheLargestRank) {
    Plan plan = plan_of();
    plan.largest_memory.bytes[static_cast<int>(MemoryClass::bank)] = 6 * kib;
    plan.largest_memory.bytes[static_cast<int>(MemoryClass::moments)] = 2 * kib;
    EXPECT_EQ(memory_line(plan), "memory      8.00 KiB per rank at most, bank 6.00 KiB, moments 2.00 KiB");
    EXPECT_EQ(json_of(plan.largest_memory)["bank"], 6144);
    EXPECT_EQ(json_of(plan.largest_memory)["total"], 8192);
    EXPECT_EQ(json_of(plan.largest_memory).size(), num_memory_classes + 1u) << "zeros included";
}

TEST(CrowdingTest, CountsThreadsAgainstTheCoresOfEachHost) {
    const auto on = [](int threads, std::vector<std::pair<std::string, std::string>> ranks) {
        ordered_json environment{{"num_threads", threads}, {"ranks", ordered_json::array()}};
        for (const auto& [host, cores] : ranks)
            environment["ranks"].push_back({{"host", host}, {"cores", cores}});
        return crowding_text(environment);
    };
    EXPECT_EQ(on(2, {{"a", "0-1"}, {"a", "2-3"}, {"b", "0-1"}}), "");
    EXPECT_TRUE(rank_lines({{"ranks", {{{"host", "a"}, {"cores", "0-1"}}}}}).empty()) << "on CPUs";
    EXPECT_EQ(on(4, {{"a", "0-7"}, {"a", "0-7"}}), "") << "unbound ranks may share what suffices for both";
    EXPECT_EQ(on(1, {{"a", "unknown"}, {"a", "unknown"}}), "");
    EXPECT_EQ(on(2, {{"b", "0-3"}, {"a", "0,2"}, {"a", "0,2"}}),
              "2 ranks of 2 threads share 2 cores of a (they take turns, and every step waits for the last); "
              "set OMP_NUM_THREADS=1 and check the binding");
    EXPECT_EQ(on(1, {{"a", "5"}, {"a", "5"}}),
              "2 ranks of 1 thread share 1 core of a (they take turns, and every step waits for the last); "
              "start fewer ranks and check the binding");
    EXPECT_EQ(on(2, {{"a", "5"}}),
              "1 rank of 2 threads share 1 core of a (they take turns, and every step waits for the last); "
              "set OMP_NUM_THREADS=1 and check the binding");
}

TEST(CrowdingTest, RanksOnGpusHaveOneEach) {
    const auto on = [](std::vector<std::pair<std::string, int>> gpus) {
        ordered_json environment{{"num_threads", 8},
                                 {"ranks", ordered_json::array()},
                                 {"collectives", {{"dp", "nccl"}, {"tp", "staged"}}},
                                 {"attention", "own kernel"}};
        for (const auto& [host, number] : gpus)
            environment["ranks"].push_back(
                {{"host", host}, {"cores", "0-3"}, {"gpu", {{"number", number}, {"name", "H100"}}}});
        return environment;
    };
    const ordered_json sound = on({{"a", 0}, {"a", 1}, {"b", 0}});
    EXPECT_EQ(crowding_text(sound), "") << "threads of the host are no matter";
    EXPECT_EQ(idle_text(sound), "");
    EXPECT_EQ(rank_lines(sound).at(1), "rank 1      a, GPU 1 (H100), cores 0-3");
    EXPECT_EQ(crowding_text(on({{"a", 0}, {"b", 1}, {"b", 1}})).find("several ranks share GPU 1 of b ("), 0u);
    EXPECT_EQ(rank_lines(on(std::vector<std::pair<std::string, int>>(20, {"a", 0}))).size(), 19u);
    EXPECT_EQ(rank_lines(sound).at(3), "collectives dp: nccl; tp: staged");
    EXPECT_EQ(rank_lines(sound).at(4), "attention   own kernel");
}

TEST(IdleTest, CountsCoresWithoutWork) {
    const auto on = [](int threads, int per_core, std::vector<std::string> cores) {
        ordered_json environment{
            {"num_threads", threads}, {"threads_per_core", per_core}, {"ranks", ordered_json::array()}};
        for (const std::string& of_rank : cores)
            environment["ranks"].push_back({{"host", "a"}, {"cores", of_rank}});
        return idle_text(environment);
    };
    EXPECT_EQ(on(1, 1, {"0-15"}),
              "1 rank of 1 thread uses 1 of 16 cores of a (the others do nothing for this run); set "
              "OMP_NUM_THREADS=16, or start more ranks");
    EXPECT_EQ(on(2, 1, {"0-7", "0-7"}).find("2 ranks of 2 threads use 4 of 8 cores of a ("), 0u);
    EXPECT_EQ(on(16, 1, {"0-15"}), "");
    EXPECT_EQ(on(8, 2, {"0-15"}), "") << "one thread for each core with two hardware threads";
    EXPECT_EQ(on(1, 1, {"0-2", "0-2"}), "") << "three cores do not divide by two";
    EXPECT_EQ(on(1, 1, {"3", "5"}), "");
    EXPECT_EQ(on(1, 1, {"unknown"}), "");
    EXPECT_EQ(on(4, 1, {"0-1"}), "") << "that is crowding";
}

}  // namespace
}  // namespace switchyard

// Every key of the option table, those of the methods included, is changed once on resume: what design
// section 7.4 lists is allowed and named, everything else is refused by name with old and new value. A key
// that is new in the table is met here without being added.
#include <gtest/gtest.h>

#include <set>

#include "config/keys.hpp"
#include "core/error.hpp"
#include "methods/registry.hpp"
#include "run/inputs.hpp"
#include "support/temporary_directory.hpp"
#include "train/resume_rules.hpp"

namespace switchyard {
namespace {

const std::set<std::string> may_change{
    "parallel.tp",          "parallel.shard_frozen", "parallel.rotate", "data.tokens",
    "data.micro_batch",     "model.recompute",       "run.dir",         "run.log_interval",
    "run.eval_interval",    "run.save_interval",     "run.keep_last",   "run.keep_every",
    "run.wall_limit",       "run.hang_timeout",      "run.stop_step",   "run.signal_lead",
    "run.check_replicas",   "run.async_save",        "io.window",       "run.trace_steps",
    "parallel.collectives", "parallel.sum_order",    "run.peak_flops",  "kernels.attention"};

Config complete(const std::string& text, const std::vector<std::string>& arguments) {
    Config config = parse_config(text, "a test", arguments, method_options()).config;
    if (config.model.vocab_size == 0) config.model.vocab_size = 300;
    resolve_auto(config);
    return config;
}

/// A value that the rule accepts and that differs.
std::string another(const ValueRule& rule, const std::string& value) {
    if (!rule.choices.empty()) return rule.choices[rule.choices[0] == value];
    if (rule.type == ValueRule::Type::boolean) return value == "true" ? "false" : "true";
    if (rule.type == ValueRule::Type::text) return value + "other";
    double number = 0;
    EXPECT_TRUE(read_number(value, number)) << value;
    number = number + 1 <= rule.maximum ? number + 1 : number / 2;
    return canonical_text(number);
}

class ResumeContract : public ::testing::TestWithParam<std::string> {
  protected:
    ResumeContract() : stored(complete("", {"--method.name=" + GetParam(), "--data.tokens=tokens.h5"})) {
        header.config = config_text(stored, method_options());
    }
    void change(const std::string& key, const std::string& before, const std::string& after) {
        const Config requested = complete(header.config, {"--" + key + "=" + after});
        const std::string line = key + ": " + before + " -> " + after;
        std::vector<AllowedChange> changes;
        const std::string error = test::message_of<UserError>(
            [&] { changes = check_resumable(header, "step_00000007.h5", requested); });
        if (may_change.contains(key)) {
            EXPECT_EQ(error, "");
            ASSERT_EQ(changes.size(), 1u);
            EXPECT_EQ(changes[0].line(), line);
            EXPECT_EQ(changes[0].effect, "") << "the run stays the same one, bit for bit";
        } else {
            EXPECT_CONTAINS(
                error,
                "differs from that of checkpoint `step_00000007.h5` (stored -> requested): " + line + " (");
        }
    }
    Config stored;
    CheckpointHeader header;
};

TEST_P(ResumeContract, EveryKeyIsAllowedOrRefusedByName) {
    std::set<std::string> met;
    for (const Key& key : built_in_keys()) {
        met.insert(key.name);
        if (key.name == "method.name" || key.name == "model.preset") continue;
        change(key.name, key.text(stored), another(key.rule, key.text(stored)));
    }
    for (const std::string& key : may_change)
        EXPECT_TRUE(met.contains(key)) << key << " is not a key any more";
    for (const MethodOptions& method : method_options()) {
        if (method.name != GetParam()) continue;
        for (const MethodOption& option : method.options) {
            const std::string value = stored.method.options.at(option.key);
            change("method." + option.key, value, another(rule_of(option), value));
        }
    }
}

TEST_P(ResumeContract, NothingChangedIsNoChange) {
    EXPECT_TRUE(check_resumable(header, "a.h5", stored).empty());
}

TEST_P(ResumeContract, AnotherMethodIsRefused) {
    for (const MethodOptions& other : method_options()) {
        if (other.name == GetParam()) continue;
        const Config requested = complete("", {"--method.name=" + other.name, "--data.tokens=tokens.h5"});
        EXPECT_CONTAINS(test::message_of<UserError>([&] { check_resumable(header, "a.h5", requested); }),
                        "method.name: " + GetParam() + " -> " + other.name);
    }
}

/// Sizes count, not the name under which they were asked for.
TEST_P(ResumeContract, PresetIsOnlyAName) {
    EXPECT_TRUE(check_resumable(header, "a.h5", complete(header.config, {"--model.preset=60m"})).empty());
    const Config requested =
        complete("", {"--method.name=" + GetParam(), "--data.tokens=tokens.h5", "--model.preset=60m"});
    EXPECT_CONTAINS(test::message_of<UserError>([&] { check_resumable(header, "a.h5", requested); }),
                    "model.hidden_size: 96 -> 512");
}

TEST_P(ResumeContract, SeveralDifferencesAreNamedTogether) {
    const Config requested = complete(header.config, {"--run.seed=3", "--optim.lr=0.5", "--run.keep_last=7"});
    const std::string error =
        test::message_of<UserError>([&] { check_resumable(header, "a.h5", requested); });
    EXPECT_CONTAINS(error, fmt::format("optim.lr: {} -> 0.5; run.seed: 0 -> 3 (", stored.optim.lr));
    EXPECT_EQ(error.find("keep_last"), std::string::npos);
}

TEST_P(ResumeContract, test_finding_13_lower_rates_are_allowed_and_named) {
    const Config lower = complete(header.config, {"--optim.lr=1e-7", "--optim.dense_lr=0"});
    const std::vector<AllowedChange> changes = check_resumable(header, "a.h5", lower);
    ASSERT_EQ(changes.size(), 2u) << "0 stands for optim.lr";
    for (const AllowedChange& change : changes) EXPECT_NE(change.effect, "") << change.line();
    EXPECT_CONTAINS(changes[0].line(), "-> 1e-07 (");
    const std::string error = test::message_of<UserError>(
        [&] { check_resumable(header, "a.h5", complete(header.config, {"--optim.lr=5"})); });
    EXPECT_CONTAINS(error, "optim.lr may be lowered, not raised");
}

TEST_P(ResumeContract, test_finding_13_steps_grow_where_the_past_stays_as_it_was) {
    const auto error = [&](const std::vector<std::string>& of_run, std::int64_t step, int steps) {
        header.config = config_text(complete(header.config, of_run), method_options());
        header.step = step;
        const Config requested = complete(header.config, {"--run.steps=" + std::to_string(steps)});
        return test::message_of<UserError>([&] {
            const auto changes = check_resumable(header, "a.h5", requested);
            EXPECT_NE(changes.at(0).effect, "");
        });
    };
    const std::string constant = "--optim.schedule=constant", wsd = "--optim.schedule=wsd";
    EXPECT_CONTAINS(error({"--run.steps=100", "--optim.warmup_steps=5"}, 50, 200), "a cosine over 200 steps");
    EXPECT_CONTAINS(error({constant}, 50, 99), "run.steps may only grow");
    EXPECT_EQ(error({constant}, 100, 101), "") << "finished";
    // The factor of step 60 (the 61st update) is still 1, that of the next one is not.
    EXPECT_EQ(error({wsd, "--optim.decay_ratio=0.4"}, 61, 200), "");
    EXPECT_CONTAINS(error({wsd}, 62, 200), "had begun by step 62");
    EXPECT_EQ(error({wsd}, 3, 200), "") << "in the warm-up";
}

TEST(InitialStateTest, MomentsOfOtherBitsAreRefused) {
    const Config stored = complete("", {"--data.tokens=tokens.h5"});
    Config requested = stored;
    requested.optim.state_bits = "8";
    EXPECT_CONTAINS(test::message_of<UserError>([&] { check_same_method(stored, "a.h5", requested); }),
                    "checkpoint `a.h5` has optim.state_bits = 32 and this run 8 (run.init_state = all");
}

std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const MethodOptions& method : method_options()) all.push_back(method.name);
    return all;
}
INSTANTIATE_TEST_SUITE_P(Methods, ResumeContract, ::testing::ValuesIn(names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard

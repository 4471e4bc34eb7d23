// The option table: precedence, exact round trips, every error by its essential words, and what a resumed run
// may change. The methods are the test's own, because config has none.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "config/keys.hpp"
#include "config/option_table.hpp"
#include "config/settings.hpp"
#include "config/value_rule.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

using Type = MethodOption::Type;

std::vector<MethodOptions> methods() {
    const MethodOption rank{.key = "rank",
                            .type = Type::integer,
                            .default_value = "auto",
                            .help = "low rank; auto: a quarter of the hidden size",
                            .minimum = 1};
    const MethodOption alpha{.key = "alpha",
                             .type = Type::real,
                             .default_value = "1.0",
                             .help = "scale of the low-rank part",
                             .minimum = 0,
                             .maximum = 1e6};
    const MethodOption interval{.key = "switch_interval",
                                .type = Type::real,
                                .default_value = "40",
                                .unit = "steps",
                                .help = "mean interval between switches",
                                .minimum = 1};
    const MethodOption order{.key = "switch_order",
                             .type = Type::text,
                             .default_value = "ring",
                             .help = "order of candidates",
                             .choices = {"ring", "random"}};
    return {{"full", "trains every weight", {}},
            {"lora", "trains low-rank pairs", {rank, alpha}},
            {"switchlora",
             "switches low-rank vectors",
             {rank,
              alpha,
              interval,
              order,
              {.key = "notes", .type = Type::text, .help = "anything"},
              {.key = "verbose", .type = Type::boolean, .default_value = "false", .help = "say more"}}}};
}

ParsedConfig parse(const std::string& text, const std::vector<std::string>& arguments = {}) {
    return parse_config(text, "run.cfg", arguments, methods());
}
Config config_of(const std::string& text, const std::vector<std::string>& arguments = {}) {
    return parse(text, arguments).config;
}

/// The message of the UserError that `work` must throw.
std::string message_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const UserError& error) {
        return error.what();
    }
    return "no error";
}

void expect_words(const std::string& message, const std::vector<std::string>& words) {
    for (const std::string& word : words)
        EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' is not in: " << message;
}

void expect_parse_error(const std::string& text, const std::vector<std::string>& words) {
    expect_words(message_of([&] { config_of(text); }), words);
}

void expect_argument_error(const std::string& argument, const std::vector<std::string>& words) {
    expect_words(message_of([&] { config_of("", {argument}); }), words);
}

std::string text_of(const Config& config) {
    return config_text(config, methods());
}

// ---- values ----

TEST(Parse, DefaultsAreThoseOfTheStructs) {
    const ParsedConfig parsed = parse("");
    EXPECT_TRUE(parsed.given_keys.empty());
    Config expected;
    expected.model.hidden_size = 96;
    expected.model.ffn_size = 260;
    expected.model.num_layers = 2;
    expected.model.num_heads = expected.model.num_kv_heads = 12;
    expected.method.options = {{"rank", "auto"},         {"alpha", "1"}, {"switch_interval", "40"},
                               {"switch_order", "ring"}, {"notes", ""},  {"verbose", "false"}};
    EXPECT_EQ(text_of(parsed.config), text_of(expected));
    EXPECT_EQ(parsed.config.method.options, expected.method.options);
    EXPECT_EQ(parsed.config.model.vocab_size, 0);
}

TEST(Parse, CommandLineBeatsFileBeatsDefault) {
    const std::string file = "[optim]\nlr = 0.5\nbeta1 = 0.8\n[run]\nsteps = 7\n";
    const ParsedConfig parsed = parse(file, {"--optim.lr=0.25", "--run.steps=8", "--run.steps=9"});
    EXPECT_EQ(parsed.config.optim.lr, 0.25);
    EXPECT_EQ(parsed.config.optim.beta1, 0.8);
    EXPECT_EQ(parsed.config.optim.beta2, 0.999);
    EXPECT_EQ(parsed.config.run.steps, 9);
    EXPECT_EQ(parsed.given_keys, (std::vector<std::string>{"optim.lr", "optim.beta1", "run.steps"}));
}

TEST(Parse, EveryBuiltInKeyReachesItsOwnMember) {
    // Sets each key in turn to another value than its default; only the text of this key may change.
    const Config defaults = config_of("");
    for (const Key& key : built_in_keys()) {
        if (key.name == "method.name" || key.name == "model.preset") continue;
        std::string value;
        switch (key.rule.type) {
            case Type::integer:
                value = key.rule.minimum <= 3 ? "3" : fmt::format("{:.0f}", key.rule.minimum);
                break;
            case Type::real:
                value = "0.125";
                break;
            case Type::boolean:
                value = key.text(defaults) == "true" ? "false" : "true";
                break;
            case Type::text:
                value = key.rule.choices.empty() ? "other" : key.rule.choices.back();
        }
        if (value == key.text(defaults)) value = key.rule.choices.front();
        const Config changed = config_of("", {"--" + key.name + "=" + value});
        const auto changes = compare_configs(defaults, changed, methods());
        std::set<std::string> names;
        for (const ConfigChange& change : changes) names.insert(change.key);
        std::set<std::string> expected{key.name};
        if (key.name == "model.num_heads") expected.insert("model.num_kv_heads");  // the same if not given
        EXPECT_EQ(names, expected) << key.name;
        EXPECT_EQ(key.text(changed), value) << key.name;
        EXPECT_FALSE(key.help.empty()) << key.name;
    }
}

TEST(Parse, KeysAreTheContractsNames) {
    std::string names;
    for (const Key& key : built_in_keys()) names += key.name + " ";
    for (const char* name : {"model.preset",
                             "model.vocab_size",
                             "model.hidden_size",
                             "model.num_layers",
                             "model.num_heads",
                             "model.num_kv_heads",
                             "model.ffn_size",
                             "model.tie_embeddings",
                             "model.recompute",
                             "method.name",
                             "parallel.tp",
                             "parallel.shard_frozen",
                             "parallel.rotate",
                             "parallel.collectives",
                             "parallel.sum_order",
                             "kernels.attention",
                             "data.tokens",
                             "data.seq_len",
                             "data.micro_batch",
                             "data.global_batch",
                             "data.mask_documents",
                             "optim.lr",
                             "optim.dense_lr",
                             "optim.schedule",
                             "optim.warmup_steps",
                             "optim.weight_decay",
                             "optim.clip_norm",
                             "optim.beta1",
                             "optim.beta2",
                             "optim.eps",
                             "optim.gradient_dtype",
                             "optim.state_bits",
                             "optim.min_8bit_size",
                             "run.dir",
                             "run.steps",
                             "run.stop_step",
                             "run.seed",
                             "run.dtype",
                             "run.log_interval",
                             "run.eval_interval",
                             "run.save_interval",
                             "run.keep_last",
                             "run.keep_every",
                             "run.wall_limit",
                             "run.hang_timeout",
                             "run.peak_flops",
                             "run.check_replicas",
                             "run.signal_lead",
                             "run.init_from"})
        EXPECT_NE(names.find(std::string(name) + " "), std::string::npos) << name;
}

TEST(Parse, PresetsHaveThePublishedShapesAndYield) {
    struct Row {
        const char* name;
        std::int64_t hidden, ffn, layers, heads;
    };
    for (const Row& row : {Row{"20m", 256, 688, 4, 4},
                           {"60m", 512, 1376, 8, 8},
                           {"130m", 768, 2048, 12, 12},
                           {"250m", 768, 2560, 24, 16},
                           {"350m", 1024, 2736, 24, 16},
                           {"1b", 2048, 5461, 24, 32},
                           {"3b", 2560, 6848, 32, 32},
                           {"7b", 4096, 11008, 32, 32}}) {
        const ModelConfig m = config_of("", {std::string("--model.preset=") + row.name}).model;
        EXPECT_EQ(m.hidden_size, row.hidden);
        EXPECT_EQ(m.ffn_size, row.ffn);
        EXPECT_EQ(m.num_layers, row.layers);
        EXPECT_EQ(m.num_heads, row.heads);
        EXPECT_EQ(m.num_kv_heads, row.heads);
    }
    const ModelConfig m = config_of("[model]\npreset = 60m\nnum_layers = 3\nnum_heads = 4\n").model;
    EXPECT_EQ(m.num_layers, 3);
    EXPECT_EQ(m.num_heads, 4);
    EXPECT_EQ(m.num_kv_heads, 4);
    EXPECT_EQ(m.hidden_size, 512);
}

TEST(Parse, PresetsFitTheirOwnRules) {
    for (const char* name : {"nano", "20m", "60m", "130m", "250m", "350m", "1b", "3b", "7b"}) {
        Config config = config_of("", {std::string("--model.preset=") + name, "--model.vocab_size=32100"});
        EXPECT_NO_THROW(validate(config, 4)) << name;
    }
}

TEST(Parse, WallLimitTakesClockTimes) {
    const auto seconds = [](const std::string& text) {
        return config_of("", {"--run.wall_limit=" + text}).run.wall_limit;
    };
    EXPECT_EQ(seconds("90"), 90);
    EXPECT_EQ(seconds("1.5"), 1.5);
    EXPECT_EQ(seconds("2:30"), 150);
    EXPECT_EQ(seconds("90:00"), 5400);
    EXPECT_EQ(seconds("1:02:03"), 3723);
    EXPECT_EQ(seconds("24:00:00"), 86400);
    EXPECT_EQ(seconds("2-01:00:00"), 2 * 86400 + 3600);
    for (const char* wrong : {"1:60", "1:2:3:4", "1:", ":5", "-5", "1-2:3", "abc", "inf", "nan", "1:61:00"})
        expect_argument_error(std::string("--run.wall_limit=") + wrong, {"run.wall_limit", wrong, "H:M:S"});
}

TEST(Parse, SeedsReachTheWholeRange) {
    EXPECT_EQ(config_of("", {"--run.seed=18446744073709551615"}).run.seed, 18446744073709551615u);
    expect_argument_error("--run.seed=18446744073709551616", {"run.seed", "whole number"});
    expect_argument_error("--run.seed=-1", {"run.seed = -1", "at least 0"});
}

TEST(Parse, FileSyntax) {
    const Config config = config_of(
        "# a comment = with an equals sign\n\n[data] # sizes\r\n  tokens=a.h5\t# behind a tab\n seq_len =  "
        "64 \n[run]\n"
        "dir = runs/a#b c  # a hash inside a word is part of it\ninit_from =\n[data]\nmicro_batch = 2\n");
    EXPECT_EQ(config.data.tokens, "a.h5");
    EXPECT_EQ(config.data.seq_len, 64);
    EXPECT_EQ(config.data.micro_batch, 2);
    EXPECT_EQ(config.run.dir, "runs/a#b c");
    EXPECT_EQ(config.run.init_from, "");
    EXPECT_EQ(config_of("run.steps = 5\n").run.steps, 5);
    EXPECT_EQ(config_of("[run]\ndir = # nothing\n").run.dir, "");
}

TEST(Parse, ArgumentsAreTakenAsTheyAre) {
    const Config config = config_of("", {"--run.dir= a # b \"c\" ", "--data.tokens=", "--run.init_from=x=y"});
    EXPECT_EQ(config.run.dir, " a # b \"c\" ");
    EXPECT_EQ(config.data.tokens, "");
    EXPECT_EQ(config.run.init_from, "x=y");
}

TEST(Parse, MethodKeysAreTypedAndCanonical) {
    const Config config = config_of("[method]\nname = switchlora\nrank = +32\nalpha = 1e1\nverbose = true\n",
                                    {"--method.switch_order=random"});
    EXPECT_EQ(option_integer(config.method, "rank"), 32);
    EXPECT_EQ(option_real(config.method, "alpha"), 10.0);
    EXPECT_EQ(option_real(config.method, "switch_interval"), 40.0);
    EXPECT_TRUE(option_boolean(config.method, "verbose"));
    EXPECT_EQ(option_text(config.method, "switch_order"), "random");
    EXPECT_EQ(config.method.options.at("alpha"), "10");
    EXPECT_EQ(option_text(config_of("[method]\nrank = auto\n").method, "rank"), "auto");
    EXPECT_TRUE(config_of("[method]\nname = full\n").method.options.empty());
}

TEST(Parse, OptionsOfTheWrongTypeAreInternalErrors) {
    const Config config = config_of("");
    EXPECT_THROW(option_integer(config.method, "missing"), InternalError);
    EXPECT_THROW(option_integer(config.method, "rank"), InternalError);  // it is still auto
    EXPECT_THROW(option_boolean(config.method, "alpha"), InternalError);
}

// ---- round trips ----

Config unusual() {
    Config config = config_of(
        "", {"--optim.lr=0.1", "--optim.eps=1.0000000000000002e-300", "--run.seed=9007199254740993",
             "--method.alpha=0.30000000000000004", "--run.dir= runs/a # b", "--optim.beta1=0.7",
             "--data.tokens=\"quoted\\ path\".h5", "--model.rope_theta=500000", "--run.wall_limit=1:00",
             "--run.init_from=two\nlines\tand\ra tab", "--method.notes=# all = of it",
             "--parallel.rotate=false", "--run.dtype=f64", "--model.norm_eps=1e-05"});
    config.optim.weight_decay = 1.0 / 3.0;
    return config;
}

TEST(RoundTrip, PlainAndAnnotatedTextsGiveTheSameConfig) {
    for (const Config& config : {config_of(""), unusual(), config_of("[method]\nname = full\n")}) {
        const std::string plain = text_of(config), annotated = annotated_config_text(config, methods());
        for (const std::string& text : {plain, annotated}) {
            const Config again = config_of(text);
            EXPECT_EQ(text_of(again), plain);
            EXPECT_TRUE(compare_configs(config, again, methods()).empty());
            EXPECT_EQ(again.optim.weight_decay, config.optim.weight_decay);
            EXPECT_EQ(again.optim.eps, config.optim.eps);
            EXPECT_EQ(again.run.seed, config.run.seed);
            EXPECT_EQ(again.run.dir, config.run.dir);
            EXPECT_EQ(again.run.init_from, config.run.init_from);
            EXPECT_EQ(again.data.tokens, config.data.tokens);
            EXPECT_EQ(again.method.options, config.method.options);
        }
        EXPECT_EQ(annotated_config_text(config_of(annotated), methods()), annotated);
    }
}

TEST(RoundTrip, EveryKindOfTextSurvives) {
    for (const std::string value :
         {"plain",   "",     " ",     "#",     "a #b",     "a#b",     "\"",
          "\"a\"",   "a\"b", "\\",    "\\n",   "a\\b # c", "\n",      "a\nb",
          "\r",      "\t",   "[run]", "x = y", "=",        "  two  ", "\xC3\xA9t\xC3\xA9",
          "#\"\\\"#"}) {
        Config config = config_of("");
        config.run.dir = value;
        EXPECT_EQ(config_of(text_of(config)).run.dir, value);
        EXPECT_EQ(config_of(annotated_config_text(config, methods())).run.dir, value);
    }
}

TEST(RoundTrip, AnnotationNamesUnitHelpAndOtherMethods) {
    const std::string text = annotated_config_text(config_of("[method]\nname = full\n"), methods());
    expect_words(text,
                 {"[run]", "steps = 1000", "# [steps] horizon", "[s] ",
                  "# switchlora: switches low-rank vectors", "switch_order = ring", "one of ring, random"});
}

TEST(RoundTrip, TextHoldsSectionsInOrder) {
    const std::string text = text_of(config_of(""));
    std::size_t last = 0;
    for (const char* part : {"[model]", "[method]", "name = switchlora", "rank = auto", "verbose = false",
                             "[parallel]", "[data]", "[optim]", "[run]"}) {
        const std::size_t place = text.find(part);
        ASSERT_NE(place, std::string::npos) << part;
        EXPECT_GE(place, last) << part;
        last = place;
    }
}

// ---- errors of single values ----

TEST(ParseError, UnknownKeyNamesTheNearest) {
    expect_parse_error("[model]\nhiden_size = 4\n",
                       {"unknown key model.hiden_size", "run.cfg:2", "model.hidden_size"});
    expect_argument_error("--run.step=4", {"unknown key run.step", "command line", "run.steps"});
    expect_argument_error("--tp=2", {"unknown key tp", "parallel.tp"});
    expect_argument_error("--optim.micro_batch=2", {"optim.micro_batch", "data.micro_batch"});
    expect_argument_error("--method.switch_intervall=2",
                          {"method.switch_intervall", "method.switch_interval?"});
    expect_argument_error("--model.hidden=2", {"unknown key model.hidden "});  // keys cannot be abbreviated
    expect_parse_error("[model]\nmodel.hidden_size = 4\n", {"model.model.hidden_size", "model.hidden_size"});
}

TEST(ParseError, KeyThatTheMethodDoesNotUse) {
    expect_parse_error(
        "[method]\nswitch_interval = 40\nname = lora\n",
        {"method.switch_interval", "run.cfg:2", "not used by method.name = lora", "switchlora"});
    expect_parse_error("[method]\nname = full\nrank = 4\n", {"method.rank", "full", "lora, switchlora"});
    expect_words(message_of([] { config_of("[method]\nrank = 4\n", {"--method.name=full"}); }), {"not used"});
}

TEST(ParseError, UnknownPresetAndMethod) {
    expect_argument_error("--model.preset=60n", {"model.preset = '60n'", "nano, 20m, 60m", "mean '60m'"});
    expect_argument_error("--method.name=switchlore", {"method.name = 'switchlore'", "command line",
                                                       "full, lora, switchlora", "mean 'switchlora'"});
}

TEST(ParseError, WrongType) {
    expect_parse_error("[run]\nsteps = many\n",
                       {"run.steps = 'many'", "run.cfg:2", "a whole number", "at least 1"});
    for (const char* wrong : {"", "1.5", "1e3", "0x10", "12 13", "--1", "+-1", "99999999999999999999999"})
        expect_argument_error(std::string("--run.steps=") + wrong,
                              {"run.steps = '" + std::string(wrong) + "'"});
    for (const char* wrong : {"", "fast", "1,5", "nan", "inf", "1e999", "1.0x"})
        expect_argument_error(std::string("--optim.lr=") + wrong,
                              {"optim.lr = '" + std::string(wrong) + "'", "a number"});
    for (const char* wrong : {"", "1", "yes", "True"})
        expect_argument_error(std::string("--parallel.rotate=") + wrong,
                              {"parallel.rotate", "true or false"});
    expect_argument_error("--method.rank=auto4", {"method.rank = 'auto4'", "whole number", "or auto"});
    expect_argument_error("--method.alpha=auto", {"method.alpha = 'auto'"});
    expect_argument_error("--method.verbose=on", {"method.verbose = 'on'", "true or false"});
}

TEST(ParseError, OutOfRange) {
    expect_argument_error("--run.steps=0", {"run.steps = 0", "command line", "out of range", "at least 1"});
    expect_argument_error("--run.steps=-5", {"run.steps = -5", "out of range"});
    expect_argument_error("--optim.lr=-1e-3", {"optim.lr = -1e-3", "at least 0"});
    expect_argument_error("--optim.beta2=1", {"optim.beta2 = 1", "out of range"});
    expect_argument_error("--optim.eps=0", {"optim.eps = 0", "above 0"});
    expect_argument_error("--optim.min_lr_ratio=1.5", {"optim.min_lr_ratio", "at least 0 and at most 1"});
    expect_argument_error("--parallel.tp=0", {"parallel.tp = 0", "at least 1"});
    expect_argument_error("--data.micro_batch=0", {"data.micro_batch", "out of range"});
    expect_argument_error("--run.keep_last=0", {"run.keep_last", "at least 1"});
    expect_argument_error("--method.rank=0", {"method.rank = 0", "at least 1"});
    expect_argument_error("--method.alpha=1e7", {"method.alpha", "at most 1000000"});
}

TEST(ParseError, UnknownChoice) {
    expect_argument_error("--optim.schedule=cosin",
                          {"optim.schedule = 'cosin'", "cosine, wsd, constant", "mean 'cosine'"});
    expect_argument_error("--run.dtype=fp32", {"run.dtype = 'fp32'", "f32, bf16, f64", "mean 'f32'"});
    expect_argument_error("--optim.gradient_dtype=f64", {"optim.gradient_dtype = 'f64'", "f32, bf16"});
    expect_argument_error("--optim.state_bits=16", {"optim.state_bits = '16'", "32, 8"});
    expect_argument_error("--method.switch_order=rings", {"method.switch_order = 'rings'", "ring, random"});
}

TEST(ParseError, Syntax) {
    expect_parse_error("[run]\nsteps 5\n", {"run.cfg:2", "steps 5", "key = value"});
    expect_parse_error("= 5\n", {"run.cfg:1", "key = value"});
    expect_parse_error("[run\nsteps = 5\n", {"run.cfg:1", "[run"});
    expect_parse_error("[run]\ndir = \"open\n", {"run.cfg:2", "closing quote"});
    expect_parse_error("[run]\ndir = \"a\" b\n", {"run.cfg:2", "'b'", "closing quote"});
    expect_parse_error("[run]\ndir = \"a\\qb\"\n", {"run.cfg:2", "backslash"});
    for (const char* wrong : {"run.steps=5", "--run.steps", "-run.steps=5", "--=5", "train"})
        expect_argument_error(wrong, {wrong, "--section.key=value"});
}

/// Boost would cut such names at the #, or refuse them without naming the place.
TEST(ParseError, test_finding_24_names_with_odd_characters_are_told_with_file_and_line) {
    for (const char* line : {"swi#tch = 1", "steps\x01 = 1", "ste ps = 1", "\xC3\xA9tapes = 1", "* = 1"})
        expect_parse_error(std::string("[run]\n") + line, {"run.cfg:2", "has the key"});
    for (const char* line : {"[mo#del]", "[]", "[a b]"})
        expect_parse_error(std::string("\n\n") + line, {"run.cfg:3"});
}

TEST(ParseError, ADefaultThatBreaksItsOwnRuleIsFound) {
    auto broken = methods();
    broken[2].options[1].default_value = "-1";
    expect_words(message_of([&] { parse_config("", "", {}, broken); }),
                 {"method.alpha = -1", "defaults of switchlora"});
}

// ---- errors between keys ----

void expect_invalid(const std::vector<std::string>& arguments, int ranks,
                    const std::vector<std::string>& words) {
    std::vector<std::string> all = {"--model.vocab_size=1000"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Config config = config_of("", all);
    expect_words(message_of([&] { validate(config, ranks); }), words);
}

TEST(Validate, AcceptsTheDefaults) {
    const Config config = config_of("", {"--model.vocab_size=1000"});
    for (int ranks : {1, 2, 4}) EXPECT_NO_THROW(validate(config, ranks));
    const Config split =
        config_of("", {"--model.vocab_size=1000", "--parallel.tp=4", "--data.global_batch=12"});
    EXPECT_NO_THROW(validate(split, 12));
}

TEST(Validate, Model) {
    expect_invalid({"--model.vocab_size=0"}, 1, {"model.vocab_size = 0", "data.tokens"});
    expect_invalid({"--model.hidden_size=100"}, 1, {"model.hidden_size = 100", "model.num_heads = 12"});
    expect_invalid({"--model.num_kv_heads=5"}, 1, {"model.num_heads = 12", "model.num_kv_heads = 5"});
    expect_invalid({"--model.num_kv_heads=24"}, 1, {"model.num_heads = 12", "model.num_kv_heads = 24"});
    expect_invalid({"--model.hidden_size=84"}, 1, {"84 / 12 = 7", "odd", "rotary"});
    Config config = config_of("", {"--model.vocab_size=1000"});
    config.model.num_layers = 0;
    expect_words(message_of([&] { validate(config, 1); }), {"model.num_layers = 0"});
}

TEST(Validate, Layout) {
    expect_invalid({"--parallel.tp=5"}, 5, {"model.num_heads = 12", "parallel.tp = 5"});
    expect_invalid({"--parallel.tp=4", "--model.num_kv_heads=6"}, 4,
                   {"model.num_kv_heads = 6", "parallel.tp = 4"});
    expect_invalid({"--parallel.tp=4"}, 6, {"6 ranks", "multiple of parallel.tp = 4", "dp x tp"});
    expect_invalid({"--parallel.tp=2"}, 1, {"1 ranks", "parallel.tp = 2"});
    Config config = config_of("", {"--model.vocab_size=1000"});
    config.parallel.tp = 0;
    expect_words(message_of([&] { validate(config, 1); }), {"parallel.tp = 0", "at least one rank"});
}

TEST(Validate, Batch) {
    expect_invalid({"--data.global_batch=18"}, 4, {"data.global_batch = 18", "4 x 4 = 16", "use 16 or 32"});
    expect_invalid({"--data.global_batch=3"}, 1, {"data.global_batch = 3", "1 x 4 = 4", "use 4,"});
    expect_invalid({"--data.global_batch=12", "--parallel.tp=2"}, 4, {"data.global_batch = 12", "2 x 4 = 8"});
    Config config = config_of("", {"--model.vocab_size=1000"});
    config.data.seq_len = 0;
    expect_words(message_of([&] { validate(config, 1); }), {"data.seq_len = 0"});
}

TEST(Validate, StepsAndFormats) {
    expect_invalid({"--run.dtype=f64", "--optim.gradient_dtype=bf16"}, 1,
                   {"gradient_dtype = bf16", "run.dtype = f64"});
    expect_invalid({"--run.stop_step=1001"}, 1, {"run.stop_step = 1001", "run.steps = 1000"});
    expect_invalid({"--run.steps=50"}, 1, {"optim.warmup_steps = 100", "run.steps = 50"});
    expect_invalid({"--optim.schedule=wsd", "--optim.warmup_steps=600", "--optim.decay_ratio=0.5"}, 1,
                   {"warmup_steps = 600", "500 steps", "run.steps = 1000"});
    expect_invalid({"--run.dir="}, 1, {"run.dir is empty"});
    for (const char* range : {"5", "5:", ":5", "0:5", "6:5", "2:3x", "two:3", "-1:2"})
        expect_invalid({std::string("--run.trace_steps=") + range}, 1,
                       {std::string("run.trace_steps = `") + range + "`", "like 10:12"});
    Config config = config_of("", {"--model.vocab_size=1000"});
    config.run.steps = 0;
    expect_words(message_of([&] { validate(config, 1); }), {"run.steps = 0", "at least one step"});
}

// ---- resume ----

TEST(Compare, AllowsWhatTheResumeContractLists) {
    const Config stored = config_of("");
    const std::vector<std::string> free = {"parallel.tp=2",
                                           "parallel.shard_frozen=true",
                                           "parallel.rotate=false",
                                           "data.tokens=b.h5",
                                           "data.micro_batch=2",
                                           "model.recompute=true",
                                           "run.dir=else",
                                           "run.log_interval=1",
                                           "run.eval_interval=5",
                                           "run.save_interval=5",
                                           "run.keep_last=9",
                                           "run.keep_every=9",
                                           "run.wall_limit=60",
                                           "run.hang_timeout=0",
                                           "run.peak_flops=5",
                                           "run.stop_step=5",
                                           "run.signal_lead=30",
                                           "run.check_replicas=5",
                                           "run.async_save=false",
                                           "io.window=65536",
                                           "run.trace_steps=3:5",
                                           "parallel.collectives=staged",
                                           "parallel.sum_order=library",
                                           "kernels.attention=own"};
    std::set<std::string> free_names;
    for (const std::string& setting : free) {
        const auto changes = compare_configs(stored, config_of("", {"--" + setting}), methods());
        ASSERT_EQ(changes.size(), 1u) << setting;
        EXPECT_EQ(changes[0].key + "=" + changes[0].requested, setting);
        EXPECT_TRUE(changes[0].allowed) << setting;
        free_names.insert(changes[0].key);
    }
    for (const Key& key : built_in_keys())
        EXPECT_EQ(key.may_change_on_resume, free_names.count(key.name) == 1) << key.name;
}

TEST(Auto, RatesAreAutoUnlessGivenAndReadBack) {
    const Config unset = config_of("");
    EXPECT_EQ(unset.optim.lr, auto_value);
    EXPECT_EQ(config_of("[optim]\nlr = auto\ndense_lr = 0.5\n").optim.lr, auto_value);
    EXPECT_EQ(config_of("[optim]\nlr = auto\ndense_lr = 0.5\n").optim.dense_lr, 0.5);
    EXPECT_EQ(config_of("", {"--optim.dense_lr=0"}).optim.dense_lr, 0);
    EXPECT_NE(text_of(unset).find("lr = auto\ndense_lr = auto\n"), std::string::npos);
    EXPECT_EQ(text_of(config_of(text_of(unset))), text_of(unset));
    expect_argument_error("--optim.lr=automatic", {"optim.lr = 'automatic'", "at least 0, or auto"});
    expect_argument_error("--optim.lr=-1", {"optim.lr = -1", "at least 0"});
    expect_argument_error("--optim.weight_decay=auto", {"optim.weight_decay = 'auto'", "a number"});
}

TEST(Auto, HelpTellsWhatEachMethodTakes) {
    std::vector<MethodOptions> here = methods();
    here[1].lr = 0.125;
    const std::string text = annotated_config_text(config_of(""), here);
    expect_words(text, {"# lora: trains low-rank pairs (auto: optim.lr = 0.125, optim.dense_lr = 0.001)"});
}

TEST(Auto, AResumedRunTakesTheStoredValueOfWhatIsNotGiven) {
    const Config stored =
        config_of("", {"--optim.lr=0.25", "--optim.dense_lr=0.125", "--method.rank=7", "--run.seed=3"});
    Config requested = config_of("", {"--optim.dense_lr=0.5"});
    take_stored_values(requested, {"optim.dense_lr"}, stored, methods());
    EXPECT_EQ(requested.optim.lr, 0.25);
    EXPECT_EQ(requested.optim.dense_lr, 0.5) << "given";
    EXPECT_EQ(option_integer(requested.method, "rank"), 7);
    EXPECT_EQ(requested.run.seed, 0u) << "has a default of its own";

    Config other = config_of("[method]\nname = lora\n");
    take_stored_values(other, {}, stored, methods());
    EXPECT_EQ(option_text(other.method, "rank"), "auto") << "of another method";
}

TEST(Auto, test_finding_07_files_of_before_decayed_norms) {
    const auto stored = [](const std::string& text) {
        return parse_stored_config(text, "x.h5", {}, methods()).optim.decay_norms;
    };
    EXPECT_FALSE(config_of("").optim.decay_norms);
    EXPECT_TRUE(stored("[optim]\nweight_decay = 0.1\n"));
    EXPECT_FALSE(stored("[optim]\ndecay_norms = false\n"));
    const Config before = parse_stored_config("", "x.h5", {}, methods());
    Config unset = config_of(""), given = unset;
    take_stored_values(unset, {}, before, methods());
    EXPECT_TRUE(unset.optim.decay_norms) << "an old run goes on as it began";
    take_stored_values(given, {"optim.decay_norms"}, before, methods());
    EXPECT_FALSE(given.optim.decay_norms);
    EXPECT_FALSE(compare_configs(before, given, methods()).at(0).allowed);
}

TEST(Compare, NamesKeyOldAndNewInTableOrder) {
    const Config stored = config_of("", {"--run.seed=1", "--optim.lr=0.1"});
    const auto changes = compare_configs(
        stored, config_of("", {"--run.seed=2", "--optim.lr=0.2", "--method.rank=8"}), methods());
    ASSERT_EQ(changes.size(), 3u);
    EXPECT_EQ(changes[0].key, "method.rank");
    EXPECT_EQ(changes[0].stored, "auto");
    EXPECT_EQ(changes[0].requested, "8");
    EXPECT_EQ(changes[1].key, "optim.lr");
    EXPECT_EQ(changes[1].stored, "0.1");
    EXPECT_EQ(changes[2].key, "run.seed");
    for (const ConfigChange& change : changes) EXPECT_FALSE(change.allowed) << change.key;
    EXPECT_TRUE(compare_configs(stored, stored, methods()).empty());
}

TEST(Compare, OtherMethodsKeysComeAndGo) {
    const Config lora = config_of("[method]\nname = lora\n"), switching = config_of("");
    const auto keys = [](const std::vector<ConfigChange>& changes) {
        std::vector<std::string> names;
        for (const ConfigChange& change : changes) {
            EXPECT_FALSE(change.allowed);
            names.push_back(change.key);
        }
        return names;
    };
    const std::vector<std::string> expected = {"method.name", "method.switch_interval", "method.switch_order",
                                               "method.notes", "method.verbose"};
    EXPECT_EQ(keys(compare_configs(lora, switching, methods())), expected);
    EXPECT_EQ(keys(compare_configs(switching, lora, methods())), expected);
}

TEST(Nearest, ByEditDistance) {
    EXPECT_EQ(nearest("kitten", {"mitten", "sitting"}), "mitten");
    EXPECT_EQ(nearest("lr", {"optim.lr", "run.dir"}), "optim.lr");
    EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace switchyard

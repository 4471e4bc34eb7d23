// What the registry replaces `auto` by, and what low-rank methods require of the model.
// BACK ENDS: cpu. Names alone.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "methods/registry.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

Config parsed(const std::vector<std::string>& arguments) {
    Config config = parse_config("", "", arguments, method_options()).config;
    config.model.vocab_size = 1000;
    return config;
}

Config resolved(const std::vector<std::string>& arguments) {
    Config config = parsed(arguments);
    resolve_auto(config);
    return config;
}

TEST(ResolveAuto, EachMethodNamesItsRates) {
    const std::map<std::string, double> lr{
        {"full", 1e-3},   {"lora", 1e-3},     {"switchlora", 1e-2}, {"relora", 1e-3}, {"dora", 1e-3},
        {"sora", 8e-4},   {"galore", 1e-2},   {"muon", 1e-3},       {"apollo", 1e-2}, {"riemannian", 8e-4},
        {"melora", 4e-4}, {"flatlora", 1e-3}, {"loft", 1e-3},     {"pclora", 1e-3}};
    for (const MethodOptions& method : method_options()) {
        const Config config = resolved({"--method.name=" + method.name});
        ASSERT_TRUE(lr.contains(method.name)) << method.name << " has no rate in this test";
        EXPECT_EQ(config.optim.lr, lr.at(method.name)) << method.name;
        EXPECT_EQ(config.optim.dense_lr, 1e-3) << method.name;
    }
}

TEST(ResolveAuto, GivenValuesStayAndAZeroDenseRateIsTheOther) {
    EXPECT_EQ(resolved({"--optim.lr=0.25"}).optim.lr, 0.25);
    EXPECT_EQ(resolved({"--optim.lr=0.25"}).optim.dense_lr, 1e-3);
    EXPECT_EQ(resolved({"--optim.lr=0.25", "--optim.dense_lr=0.5"}).optim.dense_lr, 0.5);
    // As in configurations that were stored when 0 was the default.
    EXPECT_EQ(resolved({"--optim.lr=0.25", "--optim.dense_lr=0"}).optim.dense_lr, 0.25);
    EXPECT_EQ(resolved({"--optim.lr=0"}).optim.lr, 0);
}

TEST(ResolveAuto, LeavesNothingToResolve) {
    for (const MethodOptions& method : method_options()) {
        Config config = resolved({"--method.name=" + method.name});
        const std::string once = config_text(config, method_options());
        resolve_auto(config);
        EXPECT_EQ(config_text(config, method_options()), once);
        EXPECT_EQ(once.find("lr = auto"), std::string::npos);
        EXPECT_EQ(once.find("rank = auto"), std::string::npos);
        if (config.method.options.contains("rank")) {
            const std::int64_t most = method.name == "loft" ? 16 : config.model.hidden_size;
            EXPECT_EQ(option_integer(config.method, "rank"), std::min(most, config.model.hidden_size / 4));
        }
    }
}

TEST(ResolveAuto, ARunNeverStartsWithoutValues) {
    EXPECT_THROW(validate_run(parsed({}), 1), InternalError);
    EXPECT_NO_THROW(validate_run(resolved({}), 1));
}

TEST(ValidateRun, ADefaultRankFitsEveryMatrix) {
    for (const MethodOptions& method : method_options())
        for (const std::vector<std::string>& model :
             std::vector<std::vector<std::string>>{{"--model.hidden_size=2048", "--model.num_heads=32", "--model.num_kv_heads=4"},
                                                   {"--model.hidden_size=8192", "--model.num_heads=64", "--model.num_kv_heads=64"},
                                                   {"--model.hidden_size=96", "--model.ffn_size=8"}}) {
            std::vector<std::string> arguments = model;
            arguments.push_back("--method.name=" + method.name);
            EXPECT_NO_THROW(validate_run(resolved(arguments), 1)) << method.name << " " << model[0];
        }
}

TEST(ValidateRun, ALowRankFitsEveryMatrix) {
    const auto complaint = [](const std::vector<std::string>& arguments) {
        return test::message_of<UserError>([&] { validate_run(resolved(arguments), 1); });
    };
    EXPECT_CONTAINS(complaint({"--method.rank=97"}), "method.rank = 97");
    EXPECT_CONTAINS(complaint({"--method.rank=97"}), "96 x 96");
    EXPECT_CONTAINS(complaint({"--method.rank=97"}), "use 1 to 96");
    EXPECT_CONTAINS(complaint({"--method.rank=33", "--model.num_kv_heads=4"}), "use 1 to 32");
    EXPECT_EQ(complaint({"--method.rank=96"}), "");
    EXPECT_CONTAINS(complaint({"--model.num_heads=7"}),
                    "model.num_heads");  // of the model, which is checked before the method
}

}  // namespace
}  // namespace switchyard

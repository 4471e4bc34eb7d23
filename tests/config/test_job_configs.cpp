// The configurations that users start from: that of the quickstart, on its layouts, the best settings of each
// method, and the example in README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "config/option_table.hpp"
#include "methods/registry.hpp"

namespace switchyard {
namespace {

std::string contents(const std::string& name) {
    std::ifstream file(std::string(SWITCHYARD_SOURCE_DIR) + "/" + name);
    EXPECT_TRUE(file.good()) << name;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

Config parsed(const std::string& text, const std::string& name,
              const std::vector<std::string>& arguments = {}) {
    Config config = parse_config(text, name, arguments, method_options()).config;
    resolve_auto(config);
    config.model.vocab_size = 2048;
    return config;
}

TEST(JobConfigs, TheQuickstartFitsBothOfItsLayouts) {
    const std::string name = "jobs/configs/quickstart.cfg", text = contents(name);
    EXPECT_NO_THROW(validate(parsed(text, name), 2));
    EXPECT_NO_THROW(validate(parsed(text, name, {"--parallel.tp=2"}), 2));
}

TEST(JobConfigs, TheQuickstartCoversItsBank) {
    const std::string name = "jobs/configs/quickstart.cfg";
    const Config config = parsed(contents(name), name);
    // All matrices have min(out, in) = hidden_size. The number of switches of a slot over the run is the
    // integral of the frequency 0.3^(t / (ratio steps)) / interval.
    const double switches = option_real(config.method, "switch_ratio") *
                            static_cast<double>(config.run.steps) /
                            (1.204 * option_real(config.method, "switch_interval"));
    const double candidates_per_slot = static_cast<double>(config.model.hidden_size) /
                                       static_cast<double>(option_integer(config.method, "rank"));
    EXPECT_LT(config.model.hidden_size, config.model.ffn_size);
    EXPECT_GE(switches, candidates_per_slot - 1);
}

TEST(JobConfigs, TheBestSettingsOfEachMethodAreShipped) {
    for (const MethodOptions& method : method_options()) {
        const std::string name = "jobs/configs/methods/" + method.name + ".cfg", text = contents(name);
        EXPECT_NO_THROW(validate_run(parsed(text, name), 1)) << name;
        EXPECT_EQ(parsed(text, name).method.name, method.name);
    }
}

TEST(JobConfigs, TheExampleInTheReadmeParses) {
    const std::string readme = contents("README.md"), fence = "```ini\n";
    const std::size_t begin = readme.find(fence);
    ASSERT_NE(begin, std::string::npos);
    const std::size_t end = readme.find("```", begin + fence.size());
    const std::string text = readme.substr(begin + fence.size(), end - begin - fence.size());
    EXPECT_NO_THROW(validate(parsed(text, "README.md"), 4));
}

}  // namespace
}  // namespace switchyard

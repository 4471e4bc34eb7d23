// A program holds the tests of a folder; --source=test_norm runs those of test_norm.cpp.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace switchyard::testing {

/// After InitGoogleTest: the tests of the source named by --source, without what --gtest_filter leaves out. False, with
/// a sentence, where there are none or another argument is left.
inline bool choose_source(int argc, char** argv) {
    constexpr std::string_view option = "--source=";
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument.substr(0, option.size()) != option) {
            std::fprintf(stderr, "%s is unknown; give --source=FILE or an option of GoogleTest\n", argv[i]);
            return false;
        }
        const std::string_view source = argument.substr(option.size());
        std::string chosen;
        const auto& all = *::testing::UnitTest::GetInstance();
        for (int s = 0; s < all.total_test_suite_count(); ++s) {
            const auto& suite = *all.GetTestSuite(s);
            for (int t = 0; t < suite.total_test_count(); ++t) {
                const auto& test = *suite.GetTestInfo(t);
                if (std::filesystem::path(test.file()).stem() == source)
                    chosen += std::string(suite.name()) + "." + test.name() + ":";
            }
        }
        if (chosen.empty()) {
            std::fprintf(stderr, "%s has no tests of %s.cpp\n", argv[0], std::string(source).c_str());
            return false;
        }
        chosen.pop_back();
        const std::string filter = GTEST_FLAG_GET(filter);
        const std::size_t left_out = filter.find('-');
        GTEST_FLAG_SET(filter, left_out == filter.npos ? chosen : chosen + filter.substr(left_out));
    }
    return true;
}

}  // namespace switchyard::testing

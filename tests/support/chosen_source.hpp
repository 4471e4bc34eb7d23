// A program holds the tests of a folder; --source=test_norm runs those of test_norm.cpp.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace switchyard::testing {

/// After InitGoogleTest: the tests of the source named by --source, without what --gtest_filter leaves out.
/// False, with a sentence, where there are none or another argument is left.
inline bool choose_source(int argc, char** argv) {
    constexpr std::string_view option = "--source=";
    for (int a = 1; a < argc; ++a) {
        const std::string_view argument = argv[a];
        if (argument.substr(0, option.size()) != option) {
            std::fprintf(stderr, "%s is unknown; give --source=FILE or an option of GoogleTest\n", argv[a]);
            return false;
        }
        const std::string_view source = argument.substr(option.size());
        std::string chosen;
        const auto& all = *::testing::UnitTest::GetInstance();
        for (int i = 0; i < all.total_test_suite_count(); ++i) {
            const ::testing::TestSuite& suite = *all.GetTestSuite(i);  // its tests are in one file
            if (std::filesystem::path(suite.GetTestInfo(0)->file()).stem() == source)
                chosen += std::string(suite.name()) + ".*:";
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

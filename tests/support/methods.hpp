// All methods of the registry, so that a new one is in every test that takes all of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "methods/registry.hpp"

namespace switchyard::testing {

inline std::vector<std::string> all_methods(const std::vector<std::string>& but = {}) {
    std::vector<std::string> names;
    for (const MethodOptions& method : method_options())
        if (std::find(but.begin(), but.end(), method.name) == but.end()) names.push_back(method.name);
    return names;
}

/// Of a test with a method as its parameter.
inline std::string name_of_method(const ::testing::TestParamInfo<std::string>& info) {
    return info.param;
}

/// A method at rates at which rounding does not grow from step to step: two computations of the same steps
/// stay alike. What it does at intervals, it does every `interval` steps.
inline std::vector<std::string> calm_settings(const std::string& method, int interval) {
    std::vector<std::string> all{"--method.name=" + method, "--optim.eps=1e-4", "--optim.lr=0.004"};
    const auto add = [&](const std::string& key, auto value) {
        all.push_back(fmt::format("--method.{}={}", key, value));
    };
    if (method == "switchlora") {
        add("switch_interval", interval);
        add("freeze_steps", interval / 2);  // about half of the slots are frozen on one side at any step
        add("switch_ratio", 1);
    }
    if (method == "relora") {
        add("merge_interval", interval);
        add("restart_warmup", (interval + 1) / 3);
    }
    if (method == "galore" || method == "apollo") add("update_interval", interval);
    if (method == "flatlora") add("noise", 0.5);
    if (method == "pclora") add("decay_steps", 14);  // without its base after that
    for (const char* name : {"relora", "riemannian", "melora", "flatlora", "pclora"})
        if (method == name) add("alpha", 6);
    return all;
}

}  // namespace switchyard::testing

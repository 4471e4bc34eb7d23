// All methods of the registry, so that a new one is in every test that takes all of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
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

/// A method at settings at which rounding does not grow from step to step: two computations of the same steps
/// stay alike. What it does at intervals, it does every `interval` steps.
inline std::vector<std::string> calm_settings(const std::string& method, int interval) {
    std::vector<std::string> all{"--method.name=" + method};
    const auto is_one_of = [&](std::initializer_list<const char*> names) {
        return std::find(names.begin(), names.end(), method) != names.end();
    };
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
    if (is_one_of({"relora", "riemannian", "melora", "flatlora", "pclora"})) add("alpha", 6);
    if (is_one_of({"relora", "riemannian", "melora", "loft", "flatlora", "pclora"}))
        all.push_back("--optim.lr=0.004");
    if (is_one_of({"galore", "apollo", "riemannian", "melora", "loft"})) all.push_back("--optim.eps=1e-4");
    return all;
}

}  // namespace switchyard::testing

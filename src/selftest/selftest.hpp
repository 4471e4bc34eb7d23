// The self-test: is this machine, with this program, these ranks and this layout, fit for a run? Every line
// calls what a run calls; a line that fails ends nothing, so that all of them are seen.
#pragma once

#include "comm/topology.hpp"
#include "config/config.hpp"
#include "run/environment.hpp"
#include "selftest/line.hpp"

namespace switchyard::selftest {

/// Number of the layout of json_of(); docs/selftest.md describes it.
inline constexpr int schema_version = 1;

struct Result {
    std::vector<Line> lines;             // the same on all ranks
    nlohmann::ordered_json environment;  // of rank 0, with the device of each rank; empty on the others
    double seconds = 0;

    Verdict verdict() const;  // the worst
    int count(Verdict) const;
};

/// The configuration must be validated and resolved. Collective over the world; no line that fails ends it.
Result run(const Config&, const Topology&, const StartInfo&);

/// Everything, for programs. Rank 0.
nlohmann::ordered_json json_of(const Config&, const Result&);
/// A table with a verdict per line, advice below the line, and a summary at the end.
std::string table_of(const Result&);

}  // namespace switchyard::selftest

// What a run ran on: versions, hosts, binding, start command. For environment.json and the provenance of
// checkpoints.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/topology.hpp"

namespace switchyard {

/// How the process was started.
struct StartInfo {
    std::string command;  // the whole command line
    double time_s = 0;    // seconds_now() at the start of main
};

/// Collective over the world; rank 0 gets the object, the others get an empty one.
/// `attention`: whose kernel computes it, in words; empty: not known.
nlohmann::ordered_json environment(const Topology&, const StartInfo&, const std::string& attention);

/// Where each rank computes, for people: host, GPU and cores; how tensors travel, and whose attention it is.
/// Nothing on CPUs.
std::vector<std::string> rank_lines(const nlohmann::ordered_json& environment);

/// "" or what is wrong with the hosts of environment(): threads of its ranks exceed the cores they may use,
/// or several ranks compute on one GPU.
std::string crowding_text(const nlohmann::ordered_json& environment);
/// A sentence where ranks and threads leave cores of a host without work, as OMP_NUM_THREADS=1 of a login
/// shell does; empty where they do not.
std::string idle_text(const nlohmann::ordered_json& environment);

}  // namespace switchyard

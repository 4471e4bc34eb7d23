// Whose attention a run computes with, on all ranks alike.
#pragma once

#include <string>

#include "comm/topology.hpp"
#include "config/config.hpp"
#include "kernels/attention_choice.hpp"

namespace switchyard {

/// The attentions that a rank of this run computes.
kernels::AttentionShape attention_shape(const Config&, int tp_size);

/// What all ranks found, the same on each of them.
struct AttentionFinding {
    std::string library, problem;  // of the lowest rank with a problem, as in FusedAttention
    double difference = 0;         // the largest
    bool compared = false;         // on all ranks
};
AttentionFinding try_fused_attention(const Comm& world, const kernels::AttentionShape&);

/// Follows kernels.attention, before any state is built. Returns whose attention it is and why, for people.
/// Throws AgreedError where `cudnn` cannot be followed. Collective.
std::string choose_attention(const Topology&, const Config&);

}  // namespace switchyard

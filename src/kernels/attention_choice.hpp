// Whose kernel computes attention: ours, or a library's in its place where the two agree. Each back end
// defines these functions. None communicates: ranks agree on what they found (train/attention_choice.hpp).
#pragma once

#include <optional>
#include <string>

#include "core/tensor.hpp"

namespace switchyard::kernels {

/// The attentions of a run on one rank: q (B, T, H, D), k (B, T, K, D).
struct AttentionShape {
    Shape q, k;
    DType compute = DType::f32;
    bool first_keys = false;  // queries do not see all keys up to themselves
};

struct FusedAttention {
    std::string library;  // "cuDNN 9.19.0"; empty where there is none
    std::string problem;  // why it cannot take the place of our kernel; empty if it can
    /// The largest difference from our kernel as a share of what is allowed, if the two were compared.
    std::optional<double> difference;
};
/// Compares both passes on the device, with random numbers. Takes seconds the first time: the library
/// compiles.
FusedAttention try_fused_attention(const AttentionShape&);

/// Attentions of this shape are the library's from now on, until the other function is called. Scratch is
/// asked for after this. Only after a try without a problem.
void use_fused_attention(const AttentionShape&);
void use_own_attention();

}  // namespace switchyard::kernels

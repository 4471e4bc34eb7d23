// On CPUs our kernel is the only one.
#include "kernels/attention_choice.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {

FusedAttention try_fused_attention(const AttentionShape&) {
    return {.problem = "this program computes on CPUs, where our kernel is the only one"};
}

void use_fused_attention(const AttentionShape&) {
    internal_check(false, "a library's attention on CPUs");
}

void use_own_attention() {}

}  // namespace switchyard::kernels

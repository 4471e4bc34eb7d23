// A rank without the library, or where it computes something else, is enough for all to use our kernel: the
// halves of a batch must not differ.
#include "train/attention_choice.hpp"

#include <fmt/format.h>

#include "comm/collectives.hpp"
#include "core/error.hpp"

namespace switchyard {

kernels::AttentionShape attention_shape(const Config& config, int tp_size) {
    const ModelConfig& m = config.model;
    const std::int64_t head_size = m.hidden_size / m.num_heads;
    const auto heads = [&](std::int64_t count) {
        return Shape{config.data.micro_batch, config.data.seq_len, count / tp_size, head_size};
    };
    return {.q = heads(m.num_heads),
            .k = heads(m.num_kv_heads),
            .compute = dtype_from_name(config.run.dtype),
            .first_keys = config.data.mask_documents};
}

AttentionFinding try_fused_attention(const Comm& world, const kernels::AttentionShape& shape) {
    kernels::FusedAttention mine;
    try {
        mine = kernels::try_fused_attention(shape);
    } catch (const std::exception& error) {  // to be agreed on, as what it found is
        mine.problem = error.what();
    }
    const std::string library = broadcast(world, mine.library);
    if (mine.problem.empty() && mine.library != library)
        mine.problem = fmt::format("ranks have different libraries ({} and {})", library, mine.library);
    const FirstText problem = first_text(world, mine.problem);
    AttentionFinding found{.library = library, .problem = problem.text};
    if (problem.ranks > 0 && problem.ranks < world.size())
        found.problem = fmt::format("on rank {}, {}", problem.rank, problem.text);
    found.difference = all_reduce_max(world, mine.difference.value_or(0));
    found.compared = all_reduce_max(world, mine.difference ? 0 : 1) == 0;
    return found;
}

std::string choose_attention(const Topology& topology, const Config& config) {
    const std::string& wanted = config.kernels.attention;
    kernels::use_own_attention();
    if (wanted == "own") return "own kernel, by kernels.attention";
    const kernels::AttentionShape shape = attention_shape(config, topology.tp_size());
    const AttentionFinding found = try_fused_attention(topology.world, shape);
    require<AgreedError>(wanted != "cudnn" || found.problem.empty(),
                         "kernels.attention = cudnn asks for a kernel that cannot be used here: {}; use "
                         "auto, which takes our own then, or mend that",
                         found.problem);
    if (!found.problem.empty()) return "own kernel, not cuDNN's: " + found.problem;
    kernels::use_fused_attention(shape);
    return found.library + ", which agrees with our kernel";
}

}  // namespace switchyard

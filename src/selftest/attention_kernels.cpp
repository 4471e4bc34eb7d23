// A library's attention beside our own kernel, by the comparison that a start makes.
#include <fmt/format.h>

#include "selftest/compute.hpp"
#include "train/attention_choice.hpp"

namespace switchyard::selftest {

std::vector<Line> fused_attention_lines(const Setting& setting) {
    kernels::AttentionShape shape = attention_shape(setting.config, setting.topology.tp_size());
    const Shape& q = shape.q;
    const Shape& k = shape.k;
    shape.q = {1, q[1], q[2], q[3]}, shape.k = {1, k[1], k[2], k[3]};
    const AttentionFinding found = try_fused_attention(setting.topology.world, shape);
    Line line{.section = "attention_kernels", .name = "cuDNN beside our kernel"};
    line.numbers = {{"library", found.library},
                    {"compared", found.compared},
                    {"problem", found.problem},
                    {"share_of_tolerance", nullptr}};
    if (!found.compared) {
        line.result = "skipped: " + found.problem;
        return {line};
    }
    line.numbers["share_of_tolerance"] = found.difference;
    line.result = fmt::format("{}, largest difference {:.2f} of what rounding explains", found.library,
                              found.difference);
    if (!found.problem.empty()) {
        line.verdict = Verdict::slow;
        line.advice = fmt::format(
            "cuDNN's attention cannot take the place of our kernel: {} (runs use ours, which is slower at "
            "long sequences); "
            "try another version of cuDNN",
            found.problem);
    }
    return {line};
}

}  // namespace switchyard::selftest

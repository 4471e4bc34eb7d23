// What the benchmarks of whole steps share: made-up tokens and the check that a timed step did its work.
#pragma once

#include <cmath>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "train/train_step.hpp"

namespace switchyard {

/// Uniform tokens, each target the token that follows.
inline BatchSource random_tokens(std::int64_t seq_len, std::int64_t vocab) {
    return [=](std::int64_t first, std::int64_t count, Batch& batch) {
        batch.tokens.resize(count * seq_len);
        batch.targets.resize(count * seq_len);
        for (std::int64_t i = 0; i < count * seq_len; ++i) {
            const std::int64_t position = first * seq_len + i;
            batch.tokens[i] = static_cast<std::int32_t>(uniform_below(1, position, vocab));
            batch.targets[i] = static_cast<std::int32_t>(uniform_below(1, position + 1, vocab));
        }
    };
}

/// Nothing can be learned from such tokens: the loss stays near ln(vocabulary).
inline void require_uniform_loss(const StepResult& result, const std::string& what, std::int64_t vocab) {
    const double expected = std::log(static_cast<double>(vocab));
    require(std::abs(result.loss - expected) < 0.5 && result.grad_norm > 0,
            "{} has loss {} and gradient norm {}, expected a loss of about {}: the step is wrong, its time "
            "says nothing",
            what, result.loss, result.grad_norm, expected);
}

}  // namespace switchyard

// What the benchmarks share: memory, random tokens, a check that a timed step did its work, and the output of
// rounds.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/random.hpp"
#include "train/train_step.hpp"

namespace switchyard {

/// Memory for one measurement.
class Buffer {
  public:
    Buffer(DType dtype, Shape shape)
        : memory_(backend::allocate(static_cast<std::size_t>(shape.size()) * size_of(dtype))),
          tensor_(memory_, dtype, shape) {
        kernels::fill_uniform(tensor_.reshape({1, shape.size()}), {shape.size(), 0, 0, 1, shape.size()}, 1,
                              0.5);
    }
    ~Buffer() { backend::release(memory_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Tensor tensor() const { return tensor_; }

  private:
    std::byte* memory_;
    Tensor tensor_;
};

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

/// Such tokens cannot be learned, so the loss must stay near ln(vocabulary).
inline void require_uniform_loss(const StepResult& result, const std::string& what, std::int64_t vocab) {
    const double expected = std::log(static_cast<double>(vocab));
    require(std::abs(result.loss - expected) < 0.5 && result.grad_norm > 0,
            "{} has loss {} and gradient norm {}, expected a loss of about {}: the step is wrong, its time "
            "says nothing",
            what, result.loss, result.grad_norm, expected);
}

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/// "median (lowest to highest)"
inline std::string spread(const std::vector<double>& values, int digits) {
    const auto [lowest, highest] = std::minmax_element(values.begin(), values.end());
    return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", median(values), digits, *lowest, digits, *highest,
                       digits);
}

}  // namespace switchyard

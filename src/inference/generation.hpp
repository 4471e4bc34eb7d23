// Text from a model, token by token. Rank 0 draws, from all logits in f64 and keyed random numbers, and tells
// the others.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "inference/inference_state.hpp"
#include "io/tokens/token_file.hpp"

namespace switchyard {

struct GenerationSettings {
    std::int64_t max_tokens = 200;
    double temperature = 0.8;  // 0: the most likely token
    std::int64_t top_k = 50;   // 0: all
    std::uint64_t seed = 0;
    std::int32_t end_token = -1;
    std::int64_t num_tokens = 0;  // ids that the tokenizer knows; the model may have more
};

/// The token drawn from logits with the uniform number u in (0, 1): the k largest, ties to lower ids, softmax
/// at the temperature.
std::int32_t draw_token(const std::vector<double>& logits, const GenerationSettings&, double u);

/// Continues `ids`, calling `on_token` on every rank, to the end token (not handed on) or max_tokens. Sees at
/// most the last seq_len tokens. Collective over the world.
void generate(InferenceState&, const GenerationSettings&, std::vector<std::int32_t> ids,
              const std::function<void(std::int32_t)>& on_token);

/// Text of a growing token sequence: what is certain of it is printed at once.
class TextStream {
  public:
    TextStream(const Tokenizer& tokenizer, std::vector<std::int32_t> ids)
        : tokenizer_(tokenizer), ids_(std::move(ids)) {}
    void add(std::int32_t id) { ids_.push_back(id); }
    void print();
    void finish();

  private:
    const Tokenizer& tokenizer_;
    std::vector<std::int32_t> ids_;
    std::string printed_;
};

}  // namespace switchyard

// Generates text, token by token. Rank 0 draws from all logits in f64, with keyed random numbers, and
// broadcasts the token.
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
    double temperature = 0.8;  // 0: always the most likely token
    std::int64_t top_k = 50;   // number of most likely tokens to draw from; 0: all
    std::uint64_t seed = 0;
    std::int32_t end_token = -1;
    std::int64_t num_tokens = 0;  // number of ids that the tokenizer knows; the model may have more
};

/// Draws a token from the softmax of the k largest logits (lower ids first among equal ones) at the
/// temperature; u is the uniform random number in (0, 1).
std::int32_t draw_token(const std::vector<double>& logits, const GenerationSettings&, double u);

/// Continues `ids` up to the end token or max_tokens, and calls `on_token` for each token but the end token
/// on every rank. The model sees at most the last seq_len tokens. Collective over the world.
void generate(InferenceState&, const GenerationSettings&, std::vector<std::int32_t> ids,
              const std::function<void(std::int32_t)>& on_token);

/// The text of a growing token sequence. Text that later tokens cannot change is printed at once.
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

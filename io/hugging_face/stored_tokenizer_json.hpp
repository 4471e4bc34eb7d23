// The tokenizer.json that a token file of kind hf_json stores. `export` writes its bytes out unchanged; here
// only pieces of single ids are looked up, because tokenizer_config.json names the begin and end token by
// their text.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "io/hugging_face/hugging_face.hpp"

namespace switchyard {

class StoredTokenizerJson {
  public:
    /// Throws UserError naming `file` unless `bytes` is a JSON object with a model.
    StoredTokenizerJson(std::string_view bytes, std::string file);
    /// The text of a token. Throws UserError if the file has no token with this id.
    std::string piece(std::int32_t id) const;
    /// The tokenizer_config.json for it. How a text is split, and whether it begins with facts.first_token,
    /// is left to tokenizer.json.
    nlohmann::ordered_json tokenizer_config(const LlamaFacts& facts) const;

  private:
    std::string file_;
    nlohmann::json content_;
};

}  // namespace switchyard

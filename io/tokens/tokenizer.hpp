// Tokenizer: converts text to ids and back with SentencePiece. It needs the bytes of a model only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

/// A SentencePiece processor, loaded from a serialized model; const calls may run in parallel. With models
/// that tokenize() trains, decode(encode(text)) == text for all UTF-8 text without U+2581, SentencePiece's
/// own mark for a space.
class Tokenizer {
  public:
    explicit Tokenizer(const std::string& serialized_model);
    ~Tokenizer();
    Tokenizer(Tokenizer&&) noexcept;
    std::vector<std::int32_t> encode(const std::string& text) const;
    std::string decode(const std::vector<std::int32_t>& ids) const;
    std::int32_t begin_token() const;  // -1: none
    std::int32_t end_token() const;    // -1: none
    std::int32_t unknown_token() const;
    std::int64_t vocab_size() const;
    std::string piece(std::int32_t id) const;            // its text, with U+2581 for a space
    std::int32_t id_of(const std::string& piece) const;  // -1: not a piece

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Fingerprint of a serialized SentencePiece model, as stored in TokenFileInfo.
std::uint64_t tokenizer_fingerprint(const std::string& serialized_model);

}  // namespace switchyard

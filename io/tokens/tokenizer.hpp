// Tokenizer: text to ids and back, through SentencePiece. The bytes of a model are all that it needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

/// SentencePiece processor loaded from a serialized model; const calls may run in parallel. Models that
/// tokenize() trains give decode(encode(text)) == text for all UTF-8 text but U+2581, SentencePiece's own
/// mark of a space.
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
    std::string piece(std::int32_t id) const;            // its text, a space as U+2581
    std::int32_t id_of(const std::string& piece) const;  // -1: not a piece

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Fingerprint of a serialized SentencePiece model, as in TokenFileInfo.
std::uint64_t tokenizer_fingerprint(const std::string& serialized_model);

}  // namespace switchyard

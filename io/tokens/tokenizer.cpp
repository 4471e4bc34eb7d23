// Tokenizer: a SentencePiece processor behind an interface of our own; its status codes become UserError.
#include "io/tokens/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <exception>

#include "core/error.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

struct Tokenizer::State {
    sentencepiece::SentencePieceProcessor processor;
};

Tokenizer::Tokenizer(const std::string& serialized_model) : state_(std::make_unique<State>()) {
    bool loaded = false;
    try {
        loaded = state_->processor.LoadFromSerializedProto(serialized_model).ok() &&
                 state_->processor.GetPieceSize() > 0;
    } catch (const std::exception&) {  // thrown for pieces without text, which its tries do not accept
    }
    require(
        loaded,
        "this is not a SentencePiece model (a tokenizer.json of Hugging Face is another format); give the "
        "file tokenizer.model or spiece.model");
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(const std::string& text) const {
    std::vector<std::int32_t> ids;
    const auto status = state_->processor.Encode(text, &ids);
    require(status.ok(),
            "the tokenizer cannot encode {} bytes of text ({}); check that it is a whole SentencePiece model",
            text.size(), status.ToString());
    return ids;
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids) const {
    std::string text;
    const auto status = state_->processor.Decode(ids, &text);
    require(status.ok(),
            "the tokenizer, which has {} pieces, cannot decode {} ids ({}); use the one whose ids they are",
            vocab_size(), ids.size(), status.ToString());
    return text;
}

std::int32_t Tokenizer::begin_token() const {
    return state_->processor.bos_id();
}

std::int32_t Tokenizer::end_token() const {
    return state_->processor.eos_id();
}

std::int32_t Tokenizer::unknown_token() const {
    return state_->processor.unk_id();
}

std::int64_t Tokenizer::vocab_size() const {
    return state_->processor.GetPieceSize();
}

std::string Tokenizer::piece(std::int32_t id) const {
    return state_->processor.IdToPiece(id);
}

std::int32_t Tokenizer::id_of(const std::string& piece) const {
    const std::int32_t id = state_->processor.PieceToId(piece);  // of the unknown piece, if it is not one
    return this->piece(id) == piece ? id : -1;
}

std::uint64_t tokenizer_fingerprint(const std::string& serialized_model) {
    return token_format::checksum_bytes(serialized_model);
}

}  // namespace switchyard

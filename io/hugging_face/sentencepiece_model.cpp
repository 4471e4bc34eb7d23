// The wire format of protocol buffers is a sequence of keys (field number and type) and values; fields that
// are not needed are skipped. Field numbers are those of sentencepiece_model.proto, which no release has
// changed.
#include "io/hugging_face/sentencepiece_model.hpp"

#include <cmath>
#include <cstring>
#include <string_view>

#include "core/error.hpp"

namespace switchyard {
namespace {

struct Field {
    std::uint64_t number = 0, integer = 0;
    std::string_view bytes;  // content of strings, messages and floats
};

class Wire {
  public:
    explicit Wire(std::string_view text) : text_(text) {}

    /// Reads the next field; returns false at the end.
    bool next(Field& field) {
        if (text_.empty()) return false;
        const std::uint64_t key = varint();
        field = {key >> 3, 0, {}};
        switch (key & 7) {
            case 0:
                field.integer = varint();
                break;
            case 1:
                field.bytes = take(8);
                break;
            case 2:
                field.bytes = take(varint());
                break;
            case 5:
                field.bytes = take(4);
                break;
            default:
                damaged();
        }
        return true;
    }

  private:
    [[noreturn]] static void damaged() {
        fail(
            "the SentencePiece model is damaged (its protocol buffer ends too early or holds another one); "
            "give another copy of it");
    }
    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<unsigned char>(take(1)[0]);
            value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
            if (byte < 0x80) return value;
        }
        damaged();
    }
    std::string_view take(std::uint64_t count) {
        if (count > text_.size()) damaged();
        const std::string_view part = text_.substr(0, count);
        text_.remove_prefix(count);
        return part;
    }

    std::string_view text_;
};

SentencePieceModel::Piece read_piece(std::string_view message) {
    SentencePieceModel::Piece piece;
    Wire wire(message);
    for (Field field; wire.next(field);) {
        if (field.number == 1) piece.text = field.bytes;
        if (field.number == 2 && field.bytes.size() == sizeof(float))
            std::memcpy(&piece.score, field.bytes.data(), sizeof(float));
        if (field.number == 3) piece.kind = static_cast<SentencePieceModel::Kind>(field.integer);
    }
    return piece;
}

void read_trainer(std::string_view message, SentencePieceModel& model) {
    Wire wire(message);
    for (Field field; wire.next(field);) {
        if (field.number == 3) model.algorithm = static_cast<SentencePieceModel::Algorithm>(field.integer);
        if (field.number == 24) model.space_behind_word = field.integer != 0;
        if (field.number == 35) model.byte_fallback = field.integer != 0;
    }
}

void read_normalizer(std::string_view message, SentencePieceModel& model) {
    Wire wire(message);
    for (Field field; wire.next(field);) {
        if (field.number == 1) model.rules = field.bytes;
        if (field.number == 2) model.character_map = field.bytes;
        if (field.number == 3) model.dummy_space = field.integer != 0;
        if (field.number == 4) model.strips_spaces = field.integer != 0;
        if (field.number == 5) model.escapes_spaces = field.integer != 0;
    }
}

}  // namespace

SentencePieceModel read_sentencepiece_model(const std::string& serialized) {
    SentencePieceModel model;
    Wire wire(serialized);
    for (Field field; wire.next(field);) {
        if (field.number == 1) {
            model.pieces.push_back(read_piece(field.bytes));
            require(std::isfinite(model.pieces.back().score),
                    "piece {} of the SentencePiece model has a score that is not finite (pieces are ordered "
                    "by it); "
                    "give another copy of the model",
                    model.pieces.size() - 1);
        }
        if (field.number == 2) read_trainer(field.bytes, model);
        if (field.number == 3) read_normalizer(field.bytes, model);
    }
    return model;
}

}  // namespace switchyard

// Token file: HDF5 with one flat dataset of token ids (uint16 or uint32), document boundaries, fingerprints
// and the tokenizer model itself, training tokens and validation tokens apart.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

struct TokenFileInfo {
    std::int64_t vocab_size = 0;
    std::int64_t num_tokens = 0, num_validation_tokens = 0;  // end tokens included
    std::int64_t num_documents = 0, num_validation_documents = 0;
    std::int32_t end_token = 0;               // ends every document
    std::uint64_t fingerprint = 0;            // of all tokens and boundaries
    std::uint64_t tokenizer_fingerprint = 0;  // of the tokenizer model's bytes
    std::string tokenizer_model;              // serialized SentencePiece model
};

enum class TokenSplit { training, validation };

/// Read-only, one per rank, serial HDF5; reads are independent of other ranks.
class TokenFile {
  public:
    /// Throws UserError: missing, truncated, not a token file, ids outside the vocabulary (checked on read).
    explicit TokenFile(const std::string& path);
    ~TokenFile();
    TokenFile(TokenFile&&) noexcept;

    const TokenFileInfo& info() const;
    const std::string& path() const;
    /// ids of positions [begin, begin + count). Throws UserError when an id is outside the vocabulary.
    void read(TokenSplit, std::int64_t begin, std::int64_t count, std::int32_t* ids) const;
    /// Position of the first token of the document that holds position p.
    std::int64_t document_start(TokenSplit, std::int64_t p) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// True for an HDF5 file that says it is a token file, whole or damaged; never throws.
bool is_token_file(const std::string& path);

/// Problems found by reading everything: unreadable parts, checksums, fingerprints, ids, boundaries. Empty:
/// it verifies.
std::vector<std::string> verify_token_file(const std::string& path);

/// A line for each difference in vocabulary, tokenizer, documents and tokens. Empty: identical. Throws
/// UserError when a file cannot be read.
std::vector<std::string> diff_token_files(const std::string& a, const std::string& b);

struct TokenizeOptions {
    // Text files, .jsonl files (an object a line, key "text"), "-" for standard input (text, or JSONL when
    // its first line is such an object). UTF-8; bytes that are not become U+FFFD and are counted in a
    // warning.
    std::vector<std::string> inputs;
    std::string output;
    // A SentencePiece model, a folder or a token file that holds one, or "" to train one with vocab_size
    // pieces.
    std::string tokenizer;
    std::int64_t vocab_size = 0;
    double validation = 0.01;  // share of the documents, chosen by a hash of (seed, document)
    std::string document_separator =
        "blank-lines";       // plain text: "file" (one document a file), "blank-lines", "line"
    std::uint64_t seed = 0;  // which documents go to validation
    bool show_progress = true;
};
/// Streams the inputs into `output`.partial, then renames. Throws UserError with file and line on bad input.
/// With two or more documents and validation > 0 each split gets at least one. Uses all OpenMP threads; the
/// result does not depend on their number.
TokenFileInfo tokenize(const TokenizeOptions&);

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
    std::string piece(std::int32_t id) const;  // its text, a space as U+2581
    /// Byte-pair encoding, as LLaMA's own; false for unigram and other models.
    bool is_byte_pair() const;
    /// A space is put before the first word.
    bool adds_space() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Fingerprint of a serialized SentencePiece model, as in TokenFileInfo.
std::uint64_t tokenizer_fingerprint(const std::string& serialized_model);

}  // namespace switchyard

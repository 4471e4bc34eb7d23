// Token file: HDF5 with one flat dataset of token ids (uint16 or uint32), document boundaries, fingerprints
// and the tokenizer itself, training tokens and validation tokens apart. Every document ends with the end
// token, which stands nowhere else; where there is a begin token, every document begins with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "io/tokens/tokenizer.hpp"

namespace switchyard {

/// What the bytes of a token file's tokenizer are: a SentencePiece model, a tokenizer.json of Hugging Face,
/// or nothing (the ids came from elsewhere). Files of every kind train; text goes through SentencePiece only.
enum class TokenizerKind { sentencepiece, hf_json, none };
const char* name_of(TokenizerKind);

/// Where documents came from, one row of the table `sources`.
struct TokenSource {
    std::string name;            // the input as it was named
    double weight = 1;           // share in a mixture, relative to the other sources
    std::int64_t documents = 0;  // of training and validation
    bool operator==(const TokenSource&) const = default;
};

struct TokenFileInfo {
    std::int64_t format_version = 0;
    std::int64_t vocab_size = 0;
    std::int64_t num_tokens = 0, num_validation_tokens = 0;  // begin and end tokens included
    std::int64_t num_documents = 0, num_validation_documents = 0;
    std::int32_t begin_token = -1;            // begins every document; -1: none does
    std::int32_t end_token = 0;               // ends every document
    std::uint64_t fingerprint = 0;            // of all tokens and boundaries
    std::uint64_t tokenizer_fingerprint = 0;  // of the tokenizer's bytes; kind none: chosen by the writer
    TokenizerKind tokenizer_kind = TokenizerKind::sentencepiece;
    std::string tokenizer_model;       // the tokenizer's bytes
    std::vector<TokenSource> sources;  // empty for files of version 1
};

enum class TokenSplit { training, validation };

struct TokenFileFacts;  // info and where values lie, private to io/

/// Read-only. Its facts may have been read by another rank; its values are opened by whoever reads them, and
/// reads are independent of other ranks.
class TokenFile {
  public:
    /// Reads the structure here. Versions 1 and 2. Throws UserError: missing, truncated, not a token file.
    explicit TokenFile(const std::string& path);
    /// From facts that are known already: the file itself is not opened yet.
    TokenFile(const std::string& path, TokenFileFacts);
    ~TokenFile();
    TokenFile(TokenFile&&) noexcept;

    const TokenFileInfo& info() const;
    const std::string& path() const;
    /// Opens the values now instead of at the first read. Throws UserError naming the host unless the file
    /// that the facts describe can be read here.
    void open_values() const;
    /// ids of positions [begin, begin + count). Throws UserError when an id is outside the vocabulary.
    void read(TokenSplit, std::int64_t begin, std::int64_t count, std::int32_t* ids) const;
    /// Position of the first token of the document that holds position p.
    std::int64_t document_start(TokenSplit, std::int64_t p) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// The tokenizer in a token file. Throws UserError for a kind that cannot be run here.
Tokenizer tokenizer_of(const TokenFile&);

/// True for an HDF5 file that says it is a token file, whole or damaged. Its structure is read in a child
/// process (io/files/structure_reader.hpp): throws UserError where HDF5 does not survive that.
bool is_token_file(const std::string& path);

/// Opens a token file. Rank 0 alone reads its structure, in a child process, and sends it to all ranks in one
/// message. Collective over `world`; throws UserError on all ranks.
TokenFile open_token_file(const std::string& path, const Comm& world = {});

/// Problems found by reading everything: unreadable parts, checksums, fingerprints, ids, boundaries. Empty:
/// it verifies.
std::vector<std::string> verify_token_file(const std::string& path);

/// A line for each difference in vocabulary, tokenizer, documents and tokens. Empty: identical. Throws
/// UserError when a file cannot be read.
std::vector<std::string> diff_token_files(const std::string& a, const std::string& b);

}  // namespace switchyard

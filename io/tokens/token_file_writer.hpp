// TokenFileWriter: appends documents to `path`.partial and renames it when it is complete. Its memory is
// bounded: tokens are written in blocks of whole chunks. Private to io/.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "io/files/files.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

/// A one-dimensional dataset that grows at its end, and its running checksum.
class GrowingDataset {
  public:
    /// `type`: a native unsigned type of 2 or 4 bytes, or int64. Stored in this type with a Fletcher checksum
    /// per chunk.
    GrowingDataset(hid_t group, const char* name, hid_t type);

    void append(std::uint64_t value);
    std::uint64_t size() const { return size_; }
    std::uint64_t checksum() const { return checksum_; }
    std::uint64_t get(std::uint64_t index);
    /// Drops elements [size, ...); the caller passes their values to `forget` in any order.
    void forget(std::uint64_t index, std::uint64_t value) {
        checksum_ -= token_format::checksum_term(index, value);
    }
    void truncate(std::uint64_t size);
    void flush();
    /// Writes what is buffered, and the attribute `checksum`.
    void finish();
    /// Elements [begin, begin + count), converted to 64 bits.
    void read(std::uint64_t begin, std::uint64_t count, std::vector<std::uint64_t>& out);

  private:
    hid_t type_;
    std::size_t element_bytes_;
    hdf5::Handle dataset_;
    std::vector<std::byte> buffer_;
    std::uint64_t written_ = 0, size_ = 0, checksum_ = 0;
};

class TokenFileWriter {
  public:
    /// Creates `path`.partial; throws UserError if that fails or another process writes it. `fixed` gives the
    /// vocabulary, begin and end token and the tokenizer.
    TokenFileWriter(std::string path, TokenFileInfo fixed);
    ~TokenFileWriter();  // removes an unfinished `path`.partial
    TokenFileWriter(const TokenFileWriter&) = delete;
    TokenFileWriter& operator=(const TokenFileWriter&) = delete;

    /// Writes the begin token if there is one.
    void start_document(TokenSplit);
    /// Appends tokens to the document that was started last in `split`. end_document() appends the end token.
    void append(TokenSplit, const std::vector<std::int32_t>& ids, std::size_t skip);
    void end_document(TokenSplit split) {
        parts_[index_of(split)].tokens.append(static_cast<std::uint64_t>(info_.end_token));
    }

    std::int64_t num_documents(TokenSplit split) const {
        return static_cast<std::int64_t>(parts_[index_of(split)].starts.size());
    }
    std::int64_t num_tokens(TokenSplit split) const {
        return static_cast<std::int64_t>(parts_[index_of(split)].tokens.size());
    }
    /// Makes the last document of `from` the last document of the other split.
    void move_last_document(TokenSplit from);

    /// Stores counts, sources and fingerprints, syncs, closes, renames to `path` and syncs the directory.
    TokenFileInfo commit(double validation, std::uint64_t seed, std::vector<TokenSource> sources = {});

  private:
    struct Part {
        hdf5::Handle group;
        GrowingDataset tokens, starts;
    };
    static int index_of(TokenSplit split) { return split == TokenSplit::training ? 0 : 1; }
    Part make_part(TokenSplit) const;
    void write_tokenizer();
    void write_attributes(double validation, std::uint64_t seed) const;

    std::string path_, partial_;
    FileDescriptor held_;  // `path`.partial, so that no other process writes it
    FileIdentity made_;
    TokenFileInfo info_;
    hdf5::Handle file_;
    std::vector<Part> parts_;
    bool committed_ = false;
};

}  // namespace switchyard

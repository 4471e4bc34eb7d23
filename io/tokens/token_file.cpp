// TokenFile: facts that this or another rank has read, and values that are opened on the ranks that read
// them. Every id is checked as it is read, and every chunk against its Fletcher checksum.
#include "io/tokens/token_file.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "io/files/files.hpp"
#include "io/files/hdf5_attributes.hpp"
#include "io/tokens/token_facts.hpp"
#include "io/tokens/token_format.hpp"

namespace switchyard {

using hdf5::Handle;
using namespace token_format;

namespace {

hid_t type_of(const std::uint16_t*) {
    return H5T_NATIVE_UINT16;
}
hid_t type_of(const std::int32_t*) {  // ids of 32 bits: negative ones are outside every vocabulary
    return H5T_NATIVE_UINT32;
}
hid_t type_of(const std::int64_t*) {
    return H5T_NATIVE_INT64;
}

/// A file that is open for its values: contiguous ones are read directly, those in chunks with HDF5. Path and
/// facts must outlive it.
class OpenValues {
  public:
    /// Throws UserError unless this is the file that the facts describe.
    OpenValues(const std::string& path, const TokenFileFacts& facts);
    /// Values [begin, begin + count) of the dataset `name`. Throws UserError.
    template <class T>
    void read(const std::string& name, const ValuePlace&, std::uint64_t begin, std::uint64_t count, T* out);

  private:
    hid_t file();
    hid_t dataset(const std::string& name, const ValuePlace&);

    const std::string& path_;
    const TokenFileFacts& facts_;
    FileDescriptor fd_;
    Handle file_;                             // empty until HDF5 must read
    std::map<std::string, Handle> datasets_;  // open in file_
};

OpenValues::OpenValues(const std::string& path, const TokenFileFacts& facts)
    : path_(path), facts_(facts), fd_(open_regular(path)) {
    const std::uint64_t bytes = size_of_file(fd_, path);
    require(bytes == facts.file_bytes, "it has {} bytes here, {} where its structure was read", bytes,
            facts.file_bytes);
    for (const TokenSplit split : {TokenSplit::training, TokenSplit::validation}) {
        const ValuePlace& tokens = facts.part(split).tokens;
        if (!tokens.offset && tokens.size > 0) dataset(tokens_path(split), tokens);
    }
}

hid_t OpenValues::file() {
    if (file_ >= 0) return file_;
    file_ = hdf5::open_file(path_);
    const Handle root(H5Gopen2(file_, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2");
    require(hdf5::word_attribute(root, "fingerprint") == facts_.info.fingerprint,
            "its fingerprint is a different one from that of the structure that was read");
    return file_;
}

hid_t OpenValues::dataset(const std::string& name, const ValuePlace& place) {
    Handle& handle = datasets_[name];
    if (handle >= 0) return handle;
    OpenDataset opened = open_dataset(file(), name, {place.element_bytes});
    require(opened.size == place.size, "{} has {} values here, {} where its structure was read", name,
            opened.size, place.size);
    handle = std::move(opened.handle);
    return handle;
}

template <class T>
void OpenValues::read(const std::string& name, const ValuePlace& place, std::uint64_t begin,
                      std::uint64_t count, T* out) {
    if (!place.offset) return read_range(dataset(name, place), type_of(out), begin, count, out);
    const std::string problem = read_fully(fd_, reinterpret_cast<std::byte*>(out), count * sizeof(T),
                                           *place.offset + begin * sizeof(T));
    require(problem.empty(), "{}", problem);
}

}  // namespace

struct TokenFile::State {
    std::string path;
    TokenFileFacts facts;
    std::optional<OpenValues> values;
};

TokenFile::TokenFile(const std::string& path) : TokenFile(path, read_token_facts(path)) {}

TokenFile::TokenFile(const std::string& path, TokenFileFacts facts)
    : state_(new State{path, std::move(facts), {}}) {}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

const TokenFileInfo& TokenFile::info() const {
    return state_->facts.info;
}

const std::string& TokenFile::path() const {
    return state_->path;
}

void TokenFile::open_values() const {
    if (state_->values) return;
    try {
        state_->values.emplace(state_->path, state_->facts);
    } catch (const UserError& problem) {
        fail(
            "token file `{}` cannot be read on host `{}`: {} (all ranks must see the file that rank 0 sees); "
            "put it on a file system that all nodes share",
            state_->path, host_name(), without_advice(problem.what()));
    }
}

void TokenFile::read(TokenSplit split, std::int64_t begin, std::int64_t count, std::int32_t* ids) const {
    const ValuePlace& place = state_->facts.part(split).tokens;
    internal_check(begin >= 0 && count >= 0 && begin + count <= static_cast<std::int64_t>(place.size),
                   "tokens [{}, {}) of {} {} tokens", begin, begin + count, place.size,
                   token_format::name_of(split));
    if (count == 0) return;
    open_values();
    const auto first = static_cast<std::uint64_t>(begin), size = static_cast<std::uint64_t>(count);
    try {
        if (place.element_bytes == sizeof *ids) {
            state_->values->read(tokens_path(split), place, first, size, ids);
        } else {
            std::vector<std::uint16_t> narrow(size);
            state_->values->read(tokens_path(split), place, first, size, narrow.data());
            std::copy(narrow.begin(), narrow.end(), ids);
        }
    } catch (const UserError& problem) {
        fail(
            "cannot read {} tokens {} to {} of `{}`: {} (the file is damaged or its disk unreachable); check "
            "it with `switchyard verify`",
            token_format::name_of(split), begin, begin + count - 1, state_->path,
            without_advice(problem.what()));
    }
    const auto vocab_size = static_cast<std::uint32_t>(info().vocab_size);
    for (std::int64_t i = 0; i < count; ++i) {
        require(static_cast<std::uint32_t>(ids[i]) < vocab_size,
                "`{}`: {} token {} has id {}, outside the vocabulary of {} (the file is damaged or was not "
                "made by `switchyard tokenize`); make it again",
                state_->path, token_format::name_of(split), begin + i, static_cast<std::uint32_t>(ids[i]),
                vocab_size);
    }
}

std::int64_t TokenFile::document_start(TokenSplit split, std::int64_t p) const {
    const TokenFileFacts::Part& part = state_->facts.part(split);
    internal_check(p >= 0 && p < static_cast<std::int64_t>(part.tokens.size), "no {} token {}",
                   token_format::name_of(split), p);
    open_values();
    const auto read = [&](std::uint64_t begin, std::uint64_t count, std::int64_t* starts) {
        state_->values->read(starts_path(split), part.starts, begin, count, starts);
    };
    std::uint64_t low = 0, high = part.starts.size;  // the start that is sought has an index in [low, high)
    while (high - low > chunk_elements) {
        const std::uint64_t middle = (low + high) / 2;
        std::int64_t start = 0;
        read(middle, 1, &start);
        (start <= p ? low : high) = middle;
    }
    std::vector<std::int64_t> starts(high - low);
    read(low, starts.size(), starts.data());
    const auto after = std::upper_bound(starts.begin(), starts.end(), p);
    require(after != starts.begin(),
            "`{}`: no document holds {} token {} (the file is damaged); make it again", state_->path,
            token_format::name_of(split), p);
    return *(after - 1);
}

Tokenizer tokenizer_of(const TokenFile& file) {
    const TokenFileInfo& info = file.info();
    require(
        info.tokenizer_kind == TokenizerKind::sentencepiece,
        "token file `{}` has a tokenizer of kind {} (text goes to tokens and back with SentencePiece only); "
        "give a token file made with a SentencePiece model",
        file.path(), name_of(info.tokenizer_kind));
    return Tokenizer(info.tokenizer_model);
}

TokenFile open_token_file(const std::string& path, const Comm& world) {
    const std::string facts = text_of_root(world, [&] { return examine_token_file(path); });
    return {path, token_facts_from_bytes(facts)};
}

}  // namespace switchyard

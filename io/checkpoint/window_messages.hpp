// Messages of one round of an exchange: lengths first, then what is not empty. Private to io/.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "io/checkpoint/part.hpp"

namespace switchyard {

/// Memory whose contents are about to be overwritten.
struct Bytes {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;

    Bytes() = default;
    explicit Bytes(std::size_t bytes)
        : data(bytes ? std::make_unique_for_overwrite<std::byte[]>(bytes) : nullptr), size(bytes) {}
};

/// A part as words of a message.
inline void append_words(std::vector<std::int64_t>& words, const Part& part) {
    words.push_back(static_cast<std::int64_t>(part.rows.size()));
    words.push_back(static_cast<std::int64_t>(part.cols.size()));
    for (const std::vector<Run>* runs : {&part.rows, &part.cols})
        for (const Run& run : *runs) words.insert(words.end(), {run.begin, run.count});
}

/// Reads words of a message one after another.
class Words {
  public:
    Words(const std::byte* at, std::size_t count) : at_(at), left_(count) {}
    bool done() const { return left_ == 0; }
    std::int64_t next() {
        internal_check(left_ > 0, "a message of an exchange ends early");
        std::int64_t word = 0;
        std::memcpy(&word, at_, sizeof word);
        at_ += sizeof word, --left_;
        return word;
    }
    Part part() {
        Part part;
        part.rows.resize(static_cast<std::size_t>(next()));
        part.cols.resize(static_cast<std::size_t>(next()));
        for (std::vector<Run>* runs : {&part.rows, &part.cols})
            for (Run& run : *runs) run = {next(), next()};
        return part;
    }

  private:
    const std::byte* at_;
    std::size_t left_;
};

/// sent[p] goes to rank p; returns what every rank sent here, by rank. A rank's message to itself is moved.
std::vector<Bytes> exchange_messages(const Comm&, std::vector<Bytes>& sent);

}  // namespace switchyard

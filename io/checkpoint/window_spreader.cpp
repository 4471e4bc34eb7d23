// Loading: from windows to parts. A rank asks the owners of windows for the rows that it wants; whole rows
// that no other rank wants it reads itself.
#include <map>
#include <span>
#include <tuple>

#include "core/first_exception.hpp"
#include "io/checkpoint/window_messages.hpp"
#include "io/checkpoint/windows.hpp"

namespace switchyard {
namespace {

/// Rows of a dataset that begin in a window.
using RowsOfWindow = std::tuple<std::size_t, std::int64_t, std::int64_t>;  // dataset, first row, number

struct Request {
    std::size_t dataset = 0;
    Run rows;   // that begin in the window
    Part part;  // wanted of them

    RowsOfWindow key() const { return {dataset, rows.begin, rows.count}; }
};

class Spreader {
  public:
    Spreader(const Comm& comm, const std::vector<Place>& places, const std::vector<WantedPart>& parts,
             const WindowPlan& plan, const WindowReader& reader, std::vector<ReadSums>& sums)
        : comm_(comm), places_(places), parts_(parts), plan_(plan), reader_(reader), sums_(sums) {}

    std::uint64_t run() {
        const std::uint64_t begin = begin_of(places_), end = end_of(places_);
        for (std::uint64_t number = begin / plan_.round_bytes; number < plan_.rounds(end); ++number) {
            round(plan_.round(number));
            if (reader_.progress)
                reader_.progress(std::min(end, plan_.round(number).end) - begin, end - begin);
        }
        error_.rethrow();
        return peak_bytes_;
    }

  private:
    /// Rows that this rank asked an owner for, and where they go. Replies come in the order of requests.
    struct Wish {
        const WantedPart* wanted = nullptr;
        std::int64_t first = 0, count = 0;  // among the part's rows
        Bytes values;
    };

    void round(ByteRange range) {
        const int ranks = comm_.size(), own = comm_.rank();
        std::vector<std::vector<Wish>> wishes(ranks);
        std::vector<std::vector<std::int64_t>> words(ranks);
        for (const WantedPart& wanted : parts_)
            plan_.for_windows(common(places_[wanted.dataset].bytes(), range),
                              [&](std::uint64_t w) { wish(wanted, w, wishes, words); });
        std::vector<Bytes> sent(ranks);
        for (int to = 0; to < ranks; ++to) {
            sent[to] = Bytes(words[to].size() * sizeof(std::int64_t));
            if (sent[to].size > 0) std::memcpy(sent[to].data.get(), words[to].data(), sent[to].size);
        }
        const std::vector<Bytes> asked = exchange_messages(comm_, sent);
        Requests under_way;
        std::uint64_t bytes = 0;
        for (int from = 0; from < ranks; ++from)
            for (Wish& x : wishes[from]) {
                if (from == own) continue;
                x.values = Bytes(packed_bytes(x));
                bytes += x.values.size;
                start_receive(comm_, x.values.data.get(), x.values.size, from, message_limit, under_way);
            }
        Answers answers;
        for (int away = 0; away < ranks; ++away) {
            const int to = (own + away) % ranks;
            auto next = wishes[own].begin();
            for (const Request& request : requests_in(asked[to])) {
                const std::span<const std::byte> answer = answer_to(request, answers);
                if (to != own) {
                    start_send(comm_, answer.data(), answer.size(), to, message_limit, under_way);
                } else {
                    give(*next->wanted, next->first, next->count, answer.data());
                    ++next;
                }
            }
        }
        under_way.wait();
        for (int from = 0; from < ranks; ++from)
            for (const Wish& x : wishes[from])
                if (from != own) give(*x.wanted, x.first, x.count, x.values.data.get());
        for (const auto& [key, values] : answers.read) bytes += values.size;
        for (const auto& [key, values] : answers.packed) bytes += values.size;
        peak_bytes_ = std::max(peak_bytes_, bytes);
    }

    std::size_t packed_bytes(const Wish& wish) const {
        return wish.count * wish.wanted->part.num_cols() * places_[wish.wanted->dataset].element_bytes;
    }

    void wish(const WantedPart& wanted, std::uint64_t w, std::vector<std::vector<Wish>>& wishes,
              std::vector<std::vector<std::int64_t>>& words) {
        const Place& place = places_[wanted.dataset];
        const Run rows = place.rows_beginning_in(plan_.window(w));
        const std::int64_t first = wanted.part.rows_before(rows.begin);
        const std::int64_t count = wanted.part.rows_before(rows.end()) - first;
        if (count == 0 || wanted.part.num_cols() == 0) return;
        if (!wanted.shared && count == rows.count && wanted.part.num_cols() == place.cols) {
            const std::size_t bytes = rows.count * place.row_bytes();
            if (own_.size < bytes) own_ = Bytes(bytes);
            read({wanted.dataset, rows, {}}, own_.data.get());
            return give(wanted, first, count, own_.data.get());
        }
        const int owner = plan_.owner(w);
        std::vector<std::int64_t>& to = words[owner];
        to.insert(to.end(), {static_cast<std::int64_t>(wanted.dataset), rows.begin, rows.count});
        append_words(to, wanted.part.some_rows(first, count));
        wishes[owner].push_back({&wanted, first, count, {}});
    }

    static std::vector<Request> requests_in(const Bytes& message) {
        std::vector<Request> all;
        Words words(message.data.get(), message.size / sizeof(std::int64_t));
        while (!words.done()) {
            Request request;
            request.dataset = static_cast<std::size_t>(words.next());
            request.rows = {words.next(), words.next()};
            request.part = words.part();
            all.push_back(std::move(request));
        }
        return all;
    }

    struct Answers {
        std::map<RowsOfWindow, Bytes> read;
        std::map<std::pair<RowsOfWindow, std::vector<std::int64_t>>, Bytes> packed;  // by the part's words
    };

    std::span<const std::byte> answer_to(const Request& request, Answers& answers) {
        const auto [whole, missing] = answers.read.try_emplace(request.key());
        const Place& place = places_[request.dataset];
        if (missing) {
            whole->second = Bytes(request.rows.count * place.row_bytes());
            read(request, whole->second.data.get());
        }
        const std::size_t bytes = request.part.num_rows() * request.part.num_cols() * place.element_bytes;
        if (bytes == whole->second.size) return {whole->second.data.get(), bytes};
        std::vector<std::int64_t> words;
        append_words(words, request.part);
        const auto [packed, unpacked] = answers.packed.try_emplace({request.key(), std::move(words)});
        if (unpacked) {
            packed->second = Bytes(bytes);
            const ByteRange all = place.bytes_of(request.rows);
            for_runs(request.part, place, all, [&](std::uint64_t at, std::uint64_t to, std::uint64_t length) {
                std::memcpy(packed->second.data.get() + to, whole->second.data.get() + (at - all.begin),
                            length);
            });
        }
        return {packed->second.data.get(), bytes};
    }

    void read(const Request& request, std::byte* to) {
        error_.guard([&] { reader_.read(request.dataset, request.rows, to); });
    }

    void give(const WantedPart& wanted, std::int64_t first, std::int64_t count, const std::byte* values) {
        error_.guard([&] {
            sums_[wanted.dataset].inexact += static_cast<std::uint64_t>(wanted.sink(first, count, values));
        });
    }

    const Comm& comm_;
    const std::vector<Place>& places_;
    const std::vector<WantedPart>& parts_;
    const WindowPlan& plan_;
    const WindowReader& reader_;
    std::vector<ReadSums>& sums_;
    Bytes own_;  // rows that this rank alone wants
    std::uint64_t peak_bytes_ = 0;
    FirstException error_;
};

}  // namespace

std::uint64_t spread_windows(const Comm& comm, const std::vector<Place>& places,
                             const std::vector<WantedPart>& parts, const WindowPlan& plan,
                             const WindowReader& reader, std::vector<ReadSums>& sums) {
    return Spreader(comm, places, parts, plan, reader, sums).run();
}

}  // namespace switchyard

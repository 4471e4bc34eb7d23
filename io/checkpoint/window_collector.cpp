// Saving: from parts to windows. A window that a rank holds whole is its own to write and travels nowhere;
// pieces of the others go to the windows' owners, each with the words that say where it belongs.
#include <map>

#include "core/first_exception.hpp"
#include "io/checkpoint/window_messages.hpp"
#include "io/checkpoint/windows.hpp"

namespace switchyard {

namespace {

/// Rows of a held part that a window touches.
struct Piece {
    const HeldPart* held = nullptr;
    std::uint64_t window = 0;
    std::int64_t first = 0;   // among the part's rows
    Part part;                // those rows
    std::uint64_t bytes = 0;  // within the window
};

class Collector {
  public:
    Collector(const Comm& comm, const std::vector<Place>& places, const std::vector<HeldPart>& parts,
              const WindowPlan& plan, const std::function<void(FileWindow&)>& take,
              std::vector<std::uint64_t>& filled)
        : comm_(comm), places_(places), parts_(parts), plan_(plan), take_(take), filled_(filled) {
        for (const Place& place : places)
            if (place.bytes().size() > 0) values_.push_back(place.bytes());
        std::sort(values_.begin(), values_.end(),
                  [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
    }

    void run() {
        const std::uint64_t rounds = plan_.rounds(end_of(places_));
        for (std::uint64_t number = 0; number < rounds; ++number) round(plan_.round(number));
        error_.rethrow();
    }

  private:
    void round(ByteRange range) {
        std::vector<std::vector<Piece>> pieces(plan_.ranks);
        for (const HeldPart& held : parts_) {
            plan_.for_windows(common(places_[held.dataset].bytes(), range), [&](std::uint64_t w) {
                if (held.replicas == 1 || static_cast<int>(w % held.replicas) == held.replica)
                    add_piece(held, w, pieces);
            });
        }
        std::vector<Bytes> sent(plan_.ranks);
        for (int to = 0; to < plan_.ranks; ++to) {
            if (to != comm_.rank()) sent[to] = message_of(pieces[to]);
        }
        for (const Piece& piece : pieces[comm_.rank()]) {
            const Place& place = places_[piece.held->dataset];
            fill(own_window(piece.window), piece, place);
            filled_[piece.held->dataset] += piece.bytes;
        }
        const std::vector<Bytes> received = exchange_messages(comm_, sent);
        for (const Bytes& message : received)
            if (message.size > 0) deposit(message);
        for (auto& [number, window] : windows_) {
            clear_gaps(window);
            hand_over(window);
        }
        windows_.clear();
    }

    void add_piece(const HeldPart& held, std::uint64_t w, std::vector<std::vector<Piece>>& pieces) {
        const Place& place = places_[held.dataset];
        const ByteRange window = plan_.window(w);
        const Run rows = place.rows_touching(window);
        Piece piece{&held, w, held.part.rows_before(rows.begin), {}, 0};
        const std::int64_t count = held.part.rows_before(rows.end()) - piece.first;
        if (count == 0) return;
        piece.part = held.part.some_rows(piece.first, count);
        for_runs(piece.part, place, window, [&](auto, auto, std::uint64_t bytes) { piece.bytes += bytes; });
        if (piece.bytes < plan_.window_bytes) return pieces[plan_.owner(w)].push_back(std::move(piece));
        FileWindow whole{window.begin, window, window_memory()};
        fill(whole, piece, place);
        filled_[held.dataset] += plan_.window_bytes;
        hand_over(whole);
    }

    FileWindow& own_window(std::uint64_t number) {
        FileWindow& window = windows_[number];
        if (!window.data) {
            window.origin = number * plan_.window_bytes;
            window.filled = {window.origin + plan_.window_bytes, window.origin};
            window.data = window_memory();
        }
        return window;
    }

    static void note(FileWindow& window, ByteRange bytes) {
        window.filled = {std::min(window.filled.begin, bytes.begin), std::max(window.filled.end, bytes.end)};
    }

    std::byte* scratch(std::size_t bytes) {
        if (scratch_.size < bytes) scratch_ = Bytes(bytes);
        return scratch_.data.get();
    }

    /// A piece straight from its source into its window. Rows that are cut by the window's ends, and parts of
    /// several runs, go by way of scratch memory.
    void fill(FileWindow& window, const Piece& piece, const Place& place) {
        error_.guard([&] {
            const ByteRange limits = plan_.window(piece.window);
            const std::int64_t count = piece.part.num_rows();
            const bool one_run = piece.part.rows.size() == 1 && piece.part.num_cols() == place.cols;
            const ByteRange all = one_run ? place.bytes_of(piece.part.rows[0]) : ByteRange{};
            const std::int64_t head = one_run && all.begin < limits.begin,
                               tail = one_run && all.end > limits.end;
            if (!one_run || head + tail >= count)
                return copy(window, piece.held->source, piece.part, piece.first, place, limits);
            const auto part = [&](std::int64_t first, std::int64_t rows) {
                copy(window, piece.held->source, piece.part.some_rows(first, rows), piece.first + first,
                     place, limits);
            };
            if (head) part(0, 1);
            if (tail) part(count - 1, 1);
            const ByteRange whole{all.begin + head * place.row_bytes(), all.end - tail * place.row_bytes()};
            piece.held->source(piece.first + head, count - head - tail, window.at(whole.begin));
            note(window, whole);
        });
    }

    void copy(FileWindow& window, const PartSource& source, const Part& part, std::int64_t first,
              const Place& place, ByteRange limits) {
        std::byte* const packed = scratch(part.num_rows() * part.num_cols() * place.element_bytes);
        source(first, part.num_rows(), packed);
        for_runs(part, place, limits, [&](std::uint64_t at, std::uint64_t from, std::uint64_t bytes) {
            std::memcpy(window.at(at), packed + from, bytes);
            note(window, {at, at + bytes});
        });
    }

    /// Number of words, words (window, dataset, part), then the pieces' values in the order of the file.
    Bytes message_of(const std::vector<Piece>& pieces) {
        if (pieces.empty()) return {};
        std::vector<std::int64_t> words{0};
        std::uint64_t bytes = 0;
        for (const Piece& piece : pieces) {
            words.insert(words.end(), {static_cast<std::int64_t>(piece.window),
                                       static_cast<std::int64_t>(piece.held->dataset)});
            append_words(words, piece.part);
            bytes += piece.bytes;
        }
        words[0] = static_cast<std::int64_t>(words.size()) - 1;
        Bytes message(words.size() * sizeof(std::int64_t) + bytes);
        std::memcpy(message.data.get(), words.data(), words.size() * sizeof(std::int64_t));
        std::byte* to = message.data.get() + words.size() * sizeof(std::int64_t);
        for (const Piece& piece : pieces) {
            const Place& place = places_[piece.held->dataset];
            error_.guard([&] {
                const std::int64_t rows = piece.part.num_rows();
                const std::uint64_t packed_bytes = rows * piece.part.num_cols() * place.element_bytes;
                if (packed_bytes == piece.bytes) return piece.held->source(piece.first, rows, to);
                std::byte* const packed = scratch(packed_bytes);
                piece.held->source(piece.first, rows, packed);
                std::byte* next = to;
                for_runs(piece.part, place, plan_.window(piece.window), [&](auto, auto from, auto length) {
                    std::memcpy(next, packed + from, length);
                    next += length;
                });
            });
            to += piece.bytes;
        }
        return message;
    }

    void deposit(const Bytes& message) {
        Words length(message.data.get(), 1);
        const auto count = static_cast<std::size_t>(length.next());
        Words words(message.data.get() + sizeof(std::int64_t), count);
        const std::byte* values = message.data.get() + (1 + count) * sizeof(std::int64_t);
        while (!words.done()) {
            const auto number = static_cast<std::uint64_t>(words.next());
            const auto dataset = static_cast<std::size_t>(words.next());
            FileWindow& window = own_window(number);
            for_runs(words.part(), places_[dataset], plan_.window(number),
                     [&](std::uint64_t at, std::uint64_t, std::uint64_t bytes) {
                         std::memcpy(window.at(at), values, bytes);
                         note(window, {at, at + bytes});
                         values += bytes;
                         filled_[dataset] += bytes;
                     });
        }
    }

    std::unique_ptr<std::byte[]> window_memory() {
        if (spare_.empty()) return std::make_unique_for_overwrite<std::byte[]>(plan_.window_bytes);
        std::unique_ptr<std::byte[]> memory = std::move(spare_.back());
        spare_.pop_back();
        return memory;
    }

    /// Sets the bytes between datasets to zero, because no part covers them.
    void clear_gaps(FileWindow& window) {
        auto next = std::partition_point(values_.begin(), values_.end(), [&](const ByteRange& values) {
            return values.end <= window.filled.begin;
        });
        for (std::uint64_t at = window.filled.begin; at < window.filled.end; ++next) {
            const std::uint64_t end =
                next == values_.end() ? window.filled.end : std::min(next->begin, window.filled.end);
            if (at < end) std::memset(window.at(at), 0, end - at);
            at = next == values_.end() ? end : next->end;
        }
    }

    void hand_over(FileWindow& window) {
        error_.guard([&] { take_(window); });
        if (window.data) spare_.push_back(std::move(window.data));
    }

    const Comm& comm_;
    const std::vector<Place>& places_;
    const std::vector<HeldPart>& parts_;
    const WindowPlan& plan_;
    const std::function<void(FileWindow&)>& take_;
    std::vector<std::uint64_t>& filled_;
    std::vector<ByteRange> values_;                // of all datasets, ascending
    std::map<std::uint64_t, FileWindow> windows_;  // owned, of this round
    std::vector<std::unique_ptr<std::byte[]>> spare_;
    Bytes scratch_;
    FirstException error_;
};

}  // namespace

void collect_windows(const Comm& comm, const std::vector<Place>& places, const std::vector<HeldPart>& parts,
                     const WindowPlan& plan, const std::function<void(FileWindow&)>& take,
                     std::vector<std::uint64_t>& filled) {
    Collector(comm, places, parts, plan, take, filled).run();
}

}  // namespace switchyard

// A part that is one run of the file goes straight to it. Other parts are exchanged in rounds: in each round
// an owner has a window of whole rows, bounded so that neither a message nor a rank's memory grows with the
// matrix.
#include "io/checkpoint/file_parts.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "comm/messages.hpp"
#include "core/error.hpp"
#include "io/checkpoint/stored_values.hpp"
#include "io/files/files.hpp"

namespace switchyard {
namespace {

using Buffer = std::unique_ptr<std::byte[]>;
Buffer make_buffer(std::size_t bytes) {
    return std::make_unique_for_overwrite<std::byte[]>(bytes);
}

struct Rows {
    std::int64_t begin = 0, end = 0;
    std::int64_t count() const { return std::max<std::int64_t>(0, end - begin); }
};

Rows common(const Part& part, Rows window) {
    if (part.empty()) return {};
    return {std::max(part.row0, window.begin), std::min(part.row0 + part.rows, window.end)};
}

/// Which rank moves which rows to or from the file, and in which round.
class Windows {
  public:
    Windows(const FileArray& array, int ranks) : rows_(array.rows), ranks_(ranks) {
        const std::int64_t row_bytes = array.cols * static_cast<std::int64_t>(array.element_bytes);
        constexpr std::int64_t least_bytes = 1 << 20;  // a smaller share is not worth a rank
        const std::int64_t worth = std::max<std::int64_t>(1, rows_ * row_bytes / least_bytes);
        owners_ = static_cast<int>(std::min<std::int64_t>({ranks, rows_, worth}));
        // In a round a rank sends at most one window to each owner.
        const std::int64_t round_bytes = std::clamp<std::int64_t>((256 << 20) / owners_, 1 << 16, 16 << 20);
        round_rows_ = std::max<std::int64_t>(1, round_bytes / std::max<std::int64_t>(1, row_bytes));
    }

    int owners() const { return owners_; }
    /// Owners are spread over the ranks, and so over the nodes.
    int rank_of(int owner) const { return static_cast<int>(std::int64_t{owner} * ranks_ / owners_); }
    std::int64_t rounds() const { return ((rows_ + owners_ - 1) / owners_ + round_rows_ - 1) / round_rows_; }
    Rows window(int owner, std::int64_t round) const {
        const std::int64_t end = rows_ * (owner + 1) / owners_;
        const std::int64_t begin = std::min(end, rows_ * owner / owners_ + round * round_rows_);
        return {begin, std::min(end, begin + round_rows_)};
    }
    /// The owner that is `rank`, -1: none.
    int owner_of(int rank) const {
        for (int owner = 0; owner < owners_; ++owner)
            if (rank_of(owner) == rank) return owner;
        return -1;
    }

  private:
    std::int64_t rows_, round_rows_;
    int ranks_, owners_;
};

bool one_run(const Part& part, const FileArray& array) {
    return part.empty() || part.cols == array.cols || part.rows == 1;
}

std::uint64_t position(const FileArray& array, std::int64_t row, std::int64_t col) {
    return array.offset + static_cast<std::uint64_t>(row * array.cols + col) * array.element_bytes;
}

/// Between a window (whole rows) and packed rows of a part.
template <class From, class To>
void copy_columns(From from, std::size_t from_pitch, To to, std::size_t to_pitch, std::size_t bytes,
                  std::int64_t rows) {
    for (std::int64_t row = 0; row < rows; ++row)
        std::memcpy(to + row * to_pitch, from + row * from_pitch, bytes);
}

void keep_first(std::string& error, std::string found) {
    if (error.empty()) error = std::move(found);
}

/// Calls work(first, count, position) for blocks of rows of a part that is one run of the file.
template <class Work>
void for_blocks(const Part& part, const FileArray& array, Work work) {
    if (part.empty()) return;
    const std::int64_t row_bytes = part.cols * static_cast<std::int64_t>(array.element_bytes);
    const std::int64_t step = std::min(block_rows(row_bytes), part.rows);
    const Buffer block = make_buffer(step * row_bytes);
    for (std::int64_t row = 0; row < part.rows; row += step) {
        const std::int64_t count = std::min(step, part.rows - row);
        work(row, count, block.get(), static_cast<std::size_t>(count * row_bytes),
             position(array, part.row0 + row, part.col0));
    }
}

}  // namespace

std::string write_parts(const Comm& comm, const std::vector<Part>& parts, const FileArray& array,
                        const FillRows& fill) {
    std::string error;
    const Part& mine = parts[comm.rank()];
    if (array.rows == 0 || array.cols == 0) return error;
    if (std::all_of(parts.begin(), parts.end(), [&](const Part& part) { return one_run(part, array); })) {
        for_blocks(mine, array, [&](auto first, auto count, std::byte* block, auto bytes, auto at) {
            fill(first, count, block);
            if (error.empty()) error = write_fully(array.fd, block, bytes, at);
        });
        return error;
    }
    std::int64_t covered = 0;
    for (const Part& part : parts) covered += part.area();
    internal_check(covered == array.rows * array.cols, "parts hold {} of {} values", covered,
                   array.rows * array.cols);
    const Windows windows(array, comm.size());
    const int owner = windows.owner_of(comm.rank());
    for (std::int64_t round = 0; round < windows.rounds(); ++round) {
        const Rows window = owner < 0 ? Rows{} : windows.window(owner, round);
        std::vector<Buffer> received(comm.size()), sent;
        Requests requests;
        for (int rank = 0; rank < comm.size(); ++rank) {
            const std::size_t bytes =
                common(parts[rank], window).count() * parts[rank].cols * array.element_bytes;
            if (bytes == 0) continue;
            received[rank] = make_buffer(bytes);
            if (rank != comm.rank())
                start_receive(comm, received[rank].get(), bytes, rank, message_limit, requests);
        }
        for (int to = 0; to < windows.owners(); ++to) {
            const Rows rows = common(mine, windows.window(to, round));
            if (rows.count() == 0) continue;
            const int rank = windows.rank_of(to);
            const std::size_t bytes = rows.count() * mine.cols * array.element_bytes;
            if (rank != comm.rank()) sent.push_back(make_buffer(bytes));
            std::byte* packed = rank == comm.rank() ? received[rank].get() : sent.back().get();
            fill(rows.begin - mine.row0, rows.count(), packed);
            if (rank != comm.rank()) start_send(comm, packed, bytes, rank, message_limit, requests);
        }
        requests.wait();
        if (window.count() == 0) continue;
        const std::size_t pitch = array.cols * array.element_bytes;
        const Buffer whole = make_buffer(window.count() * pitch);
        for (int rank = 0; rank < comm.size(); ++rank) {
            const Rows rows = common(parts[rank], window);
            if (rows.count() == 0) continue;
            const std::size_t bytes = parts[rank].cols * array.element_bytes;
            copy_columns(
                received[rank].get(), bytes,
                whole.get() + (rows.begin - window.begin) * pitch + parts[rank].col0 * array.element_bytes,
                pitch, bytes, rows.count());
        }
        if (error.empty())
            error =
                write_fully(array.fd, whole.get(), window.count() * pitch, position(array, window.begin, 0));
    }
    return error;
}

std::string read_parts(const Comm& comm, const std::vector<Part>& parts, const FileArray& array,
                       const TakeRows& take) {
    std::string error;
    const Part& mine = parts[comm.rank()];
    if (array.rows == 0 || array.cols == 0) return error;
    std::int64_t wanted = 0;
    for (const Part& part : parts) wanted += part.area();
    if (wanted <= array.rows * array.cols &&
        std::all_of(parts.begin(), parts.end(), [&](const Part& part) { return one_run(part, array); })) {
        for_blocks(mine, array, [&](auto first, auto count, std::byte* block, auto bytes, auto at) {
            if (error.empty()) error = read_fully(array.fd, block, bytes, at);
            if (error.empty()) take(first, count, block);
        });
        return error;
    }
    const Windows windows(array, comm.size());
    const int owner = windows.owner_of(comm.rank());
    const std::size_t pitch = array.cols * array.element_bytes;
    for (std::int64_t round = 0; round < windows.rounds(); ++round) {
        const Rows window = owner < 0 ? Rows{} : windows.window(owner, round);
        std::vector<Buffer> received(windows.owners()), sent;
        Requests requests;
        for (int from = 0; from < windows.owners(); ++from) {
            const std::size_t bytes =
                common(mine, windows.window(from, round)).count() * mine.cols * array.element_bytes;
            if (bytes == 0) continue;
            received[from] = make_buffer(bytes);
            if (windows.rank_of(from) != comm.rank())
                start_receive(comm, received[from].get(), bytes, windows.rank_of(from), message_limit,
                              requests);
        }
        const Buffer whole = make_buffer(window.count() * pitch);
        keep_first(error, read_fully(array.fd, whole.get(), window.count() * pitch,
                                     position(array, window.begin, 0)));
        for (int rank = 0; rank < comm.size(); ++rank) {
            const Rows rows = common(parts[rank], window);
            if (rows.count() == 0) continue;
            const std::size_t bytes = parts[rank].cols * array.element_bytes;
            if (rank != comm.rank()) sent.push_back(make_buffer(rows.count() * bytes));
            std::byte* packed = rank == comm.rank() ? received[owner].get() : sent.back().get();
            copy_columns(
                whole.get() + (rows.begin - window.begin) * pitch + parts[rank].col0 * array.element_bytes,
                pitch, packed, bytes, bytes, rows.count());
            if (rank != comm.rank())
                start_send(comm, packed, rows.count() * bytes, rank, message_limit, requests);
        }
        requests.wait();
        for (int from = 0; from < windows.owners(); ++from) {
            const Rows rows = common(mine, windows.window(from, round));
            if (rows.count() > 0) take(rows.begin - mine.row0, rows.count(), received[from].get());
        }
    }
    return error;
}

}  // namespace switchyard

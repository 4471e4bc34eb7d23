// A file is moved window by window: stretches of one length from its beginning on, which are aligned and long
// enough for a parallel file system. One rank writes, or reads, what a window holds, and parts travel between
// the ranks to and from it; so every byte is touched once, however the ranks cut the datasets. Rounds bound
// memory: neither a message nor what a rank keeps grows with the file or the number of ranks that want the
// same values. Private to io/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.hpp"
#include "io/checkpoint/part.hpp"

namespace switchyard {

/// What one write takes: the bytes of a window that datasets reach.
struct FileWindow {
    std::uint64_t origin = 0;  // byte of the file with which data begins
    ByteRange filled;          // bytes between datasets are zero
    std::unique_ptr<std::byte[]> data;

    std::byte* at(std::uint64_t byte) const { return data.get() + (byte - origin); }
};

struct WindowPlan {
    int ranks = 1;
    std::uint64_t window_bytes = 0;
    std::uint64_t round_bytes = 0;  // of the file, all ranks together

    /// A rank owns at most 16 MiB of a round.
    static WindowPlan for_saving(int ranks, std::uint64_t window_bytes);
    /// A rank may want all of a round, which is therefore 64 MiB at most, for any number of ranks.
    static WindowPlan for_loading(int ranks, std::uint64_t window_bytes);
    ByteRange window(std::uint64_t number) const {
        return {number * window_bytes, (number + 1) * window_bytes};
    }
    /// To move `end` bytes from the beginning of the file.
    std::uint64_t rounds(std::uint64_t end) const { return (end + round_bytes - 1) / round_bytes; }
    ByteRange round(std::uint64_t number) const { return {number * round_bytes, (number + 1) * round_bytes}; }
    /// Calls work(number) for the windows that `range` touches.
    template <class Work>
    void for_windows(ByteRange range, Work work) const {
        for (std::uint64_t w = range.begin / window_bytes; range.size() > 0 && window(w).begin < range.end;
             ++w)
            work(w);
    }
    /// Who moves a window that no rank holds alone: in turn, so that ranks and nodes share the work.
    int owner(std::uint64_t number) const { return static_cast<int>(number % ranks); }
};

/// Saving. Collective: all ranks know the same places, and each its own parts; together they cover what is to
/// be written once (replicas share the windows of their part). take(window) is called for each window that
/// this rank is to write, and may keep its data; filled[dataset] grows by the bytes of the dataset that parts
/// gave them. What a source or `take` throws is kept, the exchange goes on, and the first error is thrown at
/// the end: to be agreed on.
void collect_windows(const Comm&, const std::vector<Place>&, const std::vector<HeldPart>&, const WindowPlan&,
                     const std::function<void(FileWindow&)>& take, std::vector<std::uint64_t>& filled);

/// Sums over the values of one dataset that one rank has read.
struct ReadSums {
    std::uint64_t checksum = 0, values = 0, inexact = 0;
};

/// What loading asks of its caller.
struct WindowReader {
    /// Reads whole rows of a dataset from the file and adds them to its checksum: each row once, on one rank.
    std::function<void(std::size_t dataset, Run rows, std::byte* to)> read;
    /// Called after each round with the bytes read so far and in all.
    std::function<void(std::uint64_t done, std::uint64_t all)> progress;
};

/// Loading. Collective likewise; parts may overlap. Rows belong to the window in which they begin: each is
/// read once, by the rank that alone wants it or by the window's owner, and sent once to each rank that wants
/// it, from one buffer for all that want the same. Sinks get whole rows in any order; what they return is
/// added to sums[dataset].inexact. Returns the most bytes that a round took here.
std::uint64_t spread_windows(const Comm&, const std::vector<Place>&, const std::vector<WantedPart>&,
                             const WindowPlan&, const WindowReader&, std::vector<ReadSums>& sums);

}  // namespace switchyard

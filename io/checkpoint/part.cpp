// Arithmetic of parts: intersections with rows and byte ranges.
#include "io/checkpoint/part.hpp"

namespace switchyard {
namespace {

std::int64_t total(const std::vector<Run>& runs) {
    std::int64_t sum = 0;
    for (const Run& run : runs) sum += run.count;
    return sum;
}

}  // namespace

std::vector<Run> runs_of(const std::vector<std::int32_t>& ascending, std::int64_t offset) {
    std::vector<Run> runs;
    for (const std::int32_t number : ascending) {
        if (!runs.empty() && runs.back().end() == offset + number)
            ++runs.back().count;
        else
            runs.push_back({offset + number, 1});
    }
    return runs;
}

std::int64_t Part::num_rows() const {
    return total(rows);
}

std::int64_t Part::num_cols() const {
    return total(cols);
}

Part Part::some_rows(std::int64_t first, std::int64_t count) const {
    Part some{{}, cols};
    for (const Run& run : rows) {
        const std::int64_t begin = std::clamp<std::int64_t>(first, 0, run.count),
                           end = std::clamp<std::int64_t>(first + count, 0, run.count);
        if (begin < end) some.rows.push_back({run.begin + begin, end - begin});
        first -= run.count;
    }
    return some;
}

std::int64_t Part::rows_before(std::int64_t row) const {
    std::int64_t before = 0;
    for (const Run& run : rows) before += std::clamp<std::int64_t>(row - run.begin, 0, run.count);
    return before;
}

std::uint64_t begin_of(const std::vector<Place>& places) {
    std::uint64_t begin = end_of(places);
    for (const Place& place : places)
        if (place.bytes().size() > 0) begin = std::min(begin, place.bytes().begin);
    return begin;
}

std::uint64_t end_of(const std::vector<Place>& places) {
    std::uint64_t end = 0;
    for (const Place& place : places)
        if (place.bytes().size() > 0) end = std::max(end, place.bytes().end);
    return end;
}

Run Place::rows_touching(ByteRange range) const {
    const ByteRange inside = common(bytes(), range);
    if (inside.size() == 0) return {};
    const auto begin = static_cast<std::int64_t>((inside.begin - offset) / row_bytes());
    const auto end = static_cast<std::int64_t>((inside.end - offset + row_bytes() - 1) / row_bytes());
    return {begin, end - begin};
}

Run Place::rows_beginning_in(ByteRange range) const {
    const ByteRange inside = common(bytes(), range);
    if (inside.size() == 0) return {};
    const auto begin = static_cast<std::int64_t>((inside.begin - offset + row_bytes() - 1) / row_bytes());
    const auto end = static_cast<std::int64_t>((inside.end - offset + row_bytes() - 1) / row_bytes());
    return {begin, end - begin};
}

}  // namespace switchyard

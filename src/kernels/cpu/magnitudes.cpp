// Counts are integers, so they do not depend on the order in which threads add theirs.
#include "kernels/magnitudes.hpp"

#include <array>
#include <vector>

#include "core/calls.hpp"
#include "kernels/checks/magnitudes.hpp"
#include "kernels/cpu/row_items.hpp"

namespace switchyard::kernels {
namespace {

std::uint64_t magnitude_of(float x) {
    return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;
}
std::uint64_t magnitude_of(double x) {
    return std::bit_cast<std::uint64_t>(x) & 0x7FFFFFFFFFFFFFFFull;
}

/// f with the element type.
template <class F>
void with_real(DType dtype, const F& f) {
    dtype == DType::f64 ? f.template operator()<double>() : f.template operator()<float>();
}

using Histogram = std::array<std::int64_t, magnitude_bins>;

/// Adds the bytes above bit `shift` of x (n) whose higher bytes are `found`.
template <class T>
void count_bytes(const T* x, std::int64_t n, int shift, std::uint64_t found, Histogram& counts) {
    for (std::int64_t i = 0; i < n; ++i) {
        const std::uint64_t bytes = magnitude_of(x[i]) >> shift;
        if (bytes >> 8 == found) ++counts[bytes & 255];
    }
}

template <class T, class Key>
void drop(T* x, const Key* key, std::int64_t n, std::uint64_t limit) {
    for (std::int64_t i = 0; i < n; ++i)
        if (magnitude_of(key[i]) <= limit) x[i] = 0;
}

}  // namespace

void magnitude_histogram(std::span<const RowPart> parts, int byte, Tensor found, Tensor counts) {
    count_kernel(__func__);
    const DType dtype = check_histogram(parts, byte, found, counts);
    const int shift = 8 * (magnitude_bytes(dtype) - 1 - byte);
    RowItems items;
    std::vector<RowPlaces> places;
    for (const RowPart& part : parts) {
        check_entries(part);
        items.add(part.rows.count, part.width);
        places.emplace_back(part);
    }
    std::vector<Histogram> sums(parts.size());
    with_real(dtype, [&]<class T>() {
        items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
            Histogram mine{};
            count_bytes(places[item].at<const T>(row, begin), end - begin, shift,
                        static_cast<std::uint64_t>(found.data<std::int64_t>()[2 * item]), mine);
            for (std::int64_t bin = 0; bin < magnitude_bins; ++bin) {
                if (mine[bin] == 0) continue;
#pragma omp atomic
                sums[item][bin] += mine[bin];
            }
        });
    });
    double* out = counts.data<double>();
    for (const Histogram& sum : sums)
        for (const std::int64_t count : sum) *out++ = static_cast<double>(count);
}

void select_byte(Tensor counts, Tensor found) {
    count_kernel(__func__);
    check_selection(counts, found);
    for (std::int64_t item = 0; item < found.dim(0); ++item) {
        const double* count = counts.data<double>() + item * magnitude_bins;
        std::int64_t* bytes_and_rank = found.data<std::int64_t>() + 2 * item;
        std::int64_t byte = 0, rank = bytes_and_rank[1];
        for (; byte < magnitude_bins - 1 && rank >= static_cast<std::int64_t>(count[byte]); ++byte)
            rank -= static_cast<std::int64_t>(count[byte]);
        bytes_and_rank[0] = bytes_and_rank[0] << 8 | byte;
        bytes_and_rank[1] = rank;
    }
}

void drop_up_to(std::span<const Dropped> dropped, Tensor limits) {
    count_kernel(__func__);
    check_dropped(dropped, limits);
    RowItems items;
    std::vector<std::pair<RowPlaces, RowPlaces>> places;
    for (const Dropped& x : dropped) {
        check_entries(x.values), check_entries(x.keys);
        items.add(x.values.rows.count, x.values.width);
        places.emplace_back(RowPlaces(x.values), RowPlaces(x.keys));
    }
    items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        const auto limit = static_cast<std::uint64_t>(limits.data<std::int64_t>()[2 * item]);
        with_real(dropped[item].values.matrix.dtype(), [&]<class T>() {
            with_real(dropped[item].keys.matrix.dtype(), [&]<class Key>() {
                drop(places[item].first.at<T>(row, begin), places[item].second.at<const Key>(row, begin),
                     end - begin, limit);
            });
        });
    });
}

}  // namespace switchyard::kernels

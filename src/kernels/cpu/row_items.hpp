// Private to the CPU kernels: one loop over the rows of many matrices. Work is cut into blocks of columns of
// a row, whose bounds do not depend on the number of threads; threads get equal shares of the elements.
#pragma once

#include <vector>

#include "core/error.hpp"
#include "core/shared_loop.hpp"
#include "kernels/checks/rows.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace switchyard::kernels {

class RowItems {
  public:
    /// Adds an item; items without elements are skipped.
    void add(std::int64_t rows, std::int64_t width) {
        width_.push_back(width);
        first_element_.push_back(first_element_.back() + rows * width);
    }
    std::int64_t num_elements() const { return first_element_.back(); }

    /// f(item, row, begin, end) for each block of columns [0, width) of each row, on all threads.
    template <class F>
    void for_blocks(const F& f) const {
        const std::int64_t all = num_elements();
        const std::int64_t parts = loop_threads(all > parallel_elements);
        for_shared(parts, true, [&](std::int64_t part) {
            walk(start_of(all / parts * part + std::min(part, all % parts)),
                 start_of(all / parts * (part + 1) + std::min(part + 1, all % parts)), f);
        });
    }

  private:
    struct Place {
        std::size_t item = 0;
        std::int64_t row = 0, column = 0;  // where a block begins
        bool before(const Place& other) const {
            return item != other.item ? item < other.item
                   : row != other.row ? row < other.row
                                      : column < other.column;
        }
    };
    /// The first block that begins at or after this element, counted over all items.
    Place start_of(std::int64_t element) const {
        if (element >= num_elements()) return {width_.size(), 0, 0};
        const auto next = std::upper_bound(first_element_.begin(), first_element_.end(), element);
        Place place;
        place.item = static_cast<std::size_t>(next - first_element_.begin() - 1);
        const std::int64_t within = element - first_element_[place.item], width = width_[place.item];
        place.row = within / width;
        place.column = num_blocks(within % width) * block_size;
        return place;
    }
    template <class F>
    void walk(Place place, Place end, const F& f) const {
        while (place.before(end)) {
            const std::int64_t width = width_[place.item];
            const std::int64_t rows =
                width == 0 ? 0 : (first_element_[place.item + 1] - first_element_[place.item]) / width;
            for (; place.row < rows; ++place.row, place.column = 0)
                for (; place.column < width; place.column += block_size) {
                    if (!place.before(end)) return;
                    f(place.item, place.row, place.column, std::min(width, place.column + block_size));
                }
            place = {place.item + 1, 0, 0};
        }
    }

    std::vector<std::int64_t> width_;
    std::vector<std::int64_t> first_element_{0};  // of each item, then the total number
};

/// The addresses of the rows of a rectangle, with elements of any type.
struct RowPlaces {
    std::byte* first = nullptr;  // column 0 of the rectangle in row 0 of the matrix, or in row `rows.first`
    const std::int32_t* list = nullptr;  // nullptr: the rows are a range
    std::int64_t stride = 0;             // in elements
    std::int64_t rows = 0;

    RowPlaces() = default;
    explicit RowPlaces(const RowPart& part)
        : list(part.rows.list.empty() ? nullptr : part.rows.list.data<std::int32_t>()),
          stride(part.matrix.empty() ? 0 : part.matrix.dim(1)),
          rows(part.rows.count) {
        if (!part.matrix.empty())
            first =
                part.matrix.data<std::byte>() + ((list ? 0 : part.rows.first) * stride + part.column) *
                                                    static_cast<std::int64_t>(size_of(part.matrix.dtype()));
    }
    std::int64_t offset(std::int64_t row, std::int64_t column) const {
        return (list ? list[row] : row) * stride + column;
    }
    template <class T>
    T* at(std::int64_t row, std::int64_t column) const {
        return static_cast<T*>(static_cast<void*>(first)) + offset(row, column);
    }
    /// Prefetches the row two places later in a list, which hardware cannot predict.
    template <bool write, class T>
    void prefetch_later(std::int64_t row, std::int64_t begin, std::int64_t end) const {
        if (list && row + 2 < rows) prefetch<write>(at<T>(row + 2, begin), end - begin);
    }
};

/// Throws InternalError unless the entries of the list, if there is one, are rows of the matrix.
inline void check_entries(const RowPart& part) {
    if (part.rows.list.empty()) return;
    const auto* list = part.rows.list.data<std::int32_t>();
    for (std::int64_t i = 0; i < part.rows.count; ++i)
        internal_check(list[i] >= 0 && list[i] < part.matrix.dim(0), "row {} of a tensor {}", list[i],
                       part.matrix.shape());
}

}  // namespace switchyard::kernels

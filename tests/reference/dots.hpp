// Dot products of rows and columns by loops in double.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::reference {

/// Of the columns of a and b (rows, width).
inline std::vector<double> column_dots(const std::vector<double>& a, const std::vector<double>& b,
                                       std::int64_t rows, std::int64_t width) {
    std::vector<double> dots(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < rows * width; ++i)
        dots[static_cast<std::size_t>(i % width)] +=
            a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(i)];
    return dots;
}

/// Sums of the columns of a.
inline std::vector<double> column_sums(const std::vector<double>& a, std::int64_t rows, std::int64_t width) {
    return column_dots(a, std::vector<double>(a.size(), 1), rows, width);
}

/// Of the rows.
inline std::vector<double> row_dots(const std::vector<double>& a, const std::vector<double>& b,
                                    std::int64_t rows, std::int64_t width) {
    std::vector<double> dots(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows * width; ++i)
        dots[static_cast<std::size_t>(i / width)] +=
            a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(i)];
    return dots;
}

}  // namespace switchyard::reference

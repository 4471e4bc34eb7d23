// Table look-up and its transpose, for the table rows begin ... begin + count - 1 that a rank holds.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::reference {

struct TableRows {
    std::int64_t begin, count;
    std::size_t width;
};

inline std::vector<double> embed(const std::vector<std::int32_t>& tokens, const std::vector<double>& table,
                                 TableRows t) {
    std::vector<double> x(tokens.size() * t.width);
    for (std::size_t i = 0; i < tokens.size(); ++i)
        for (std::size_t j = 0; j < t.width; ++j)
            if (tokens[i] >= t.begin && tokens[i] < t.begin + t.count)
                x[i * t.width + j] = table[static_cast<std::size_t>(tokens[i] - t.begin) * t.width + j];
    return x;
}

inline void add_embedding_gradient(const std::vector<std::int32_t>& tokens, const std::vector<double>& d_x,
                                   TableRows t, std::vector<double>& d_table) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
        for (std::size_t j = 0; j < t.width; ++j)
            if (tokens[i] >= t.begin && tokens[i] < t.begin + t.count)
                d_table[static_cast<std::size_t>(tokens[i] - t.begin) * t.width + j] += d_x[i * t.width + j];
}

}  // namespace switchyard::reference

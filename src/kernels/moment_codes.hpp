// Codes of 8 bits for AdamW's moments (Dettmers et al. 2022, arXiv 2110.02861, "dynamic tree quantisation",
// with the blocks and maps of bitsandbytes). A block of 256 neighbours of a row has one scale, its largest
// magnitude; a number is the value of its code times the scale. Blocks are counted from column 0 of the whole
// row, so that they are the same however tp cuts it.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace switchyard::kernels {

inline constexpr std::int64_t code_block = 256;
inline constexpr int num_codes = 256;

/// The code of 0 and, for first moments, which have both signs, the middle of the map.
constexpr int zero_code(bool has_signs) {
    return has_signs ? 127 : 0;
}

/// The value of a code, ascending with it: 10^(d - 6) times the means of neighbours among 2^d + 1 (without
/// signs 2^(d + 1) + 1) numbers at equal distances from 0.1 to 1, d = 0 ... 6, with both signs or positive;
/// 0; and 1. Rounded to f32. -1 is not among them.
constexpr float code_value(int code, bool has_signs) {
    const int zero = zero_code(has_signs);
    if (code == zero) return 0;
    if (code == num_codes - 1) return 1;
    int place = code > zero ? code - zero - 1 : zero - 1 - code, means = has_signs ? 1 : 2;
    double power = 1e6;  // 10^(6 - d)
    for (; place >= means; means *= 2, power /= 10) place -= means;
    const double value = (0.1 + 0.9 * (2 * place + 1) / (2 * means)) / power;
    return static_cast<float>(code > zero ? value : -value);
}

/// The largest T that is not above the middle between the values of `code` and the next one.
template <class T>
constexpr T code_bound(int code, bool has_signs) {
    const double middle = (static_cast<double>(code_value(code, has_signs)) +
                           static_cast<double>(code_value(code + 1, has_signs))) /
                          2;
    const T bound = static_cast<T>(middle);
    if constexpr (std::is_same_v<T, float>)
        if (static_cast<double>(bound) > middle)
            return std::bit_cast<float>(std::bit_cast<std::uint32_t>(bound) + (bound > 0 ? -1u : 1u));
    return bound;
}

/// The code with the value nearest to x (|x| <= 1; of two the smaller code), but none of value 0 for a
/// negative number, as in bitsandbytes. bound (255): code_bound() of each code.
template <class T>
constexpr int nearest_code(T x, const T* bound, int zero) {
    int code = x > bound[127] ? 128 : 0;
    code += x > bound[code + 63] ? 64 : 0;
    code += x > bound[code + 31] ? 32 : 0;
    code += x > bound[code + 15] ? 16 : 0;
    code += x > bound[code + 7] ? 8 : 0;
    code += x > bound[code + 3] ? 4 : 0;
    code += x > bound[code + 1] ? 2 : 0;
    code += x > bound[code] ? 1 : 0;
    return code - (x < 0 && code == zero ? 1 : 0);
}

/// Blocks that `width` columns touch of which the first is column `first` of the whole row.
constexpr std::int64_t num_code_blocks(std::int64_t first, std::int64_t width) {
    return width == 0 ? 0 : (first % code_block + width + code_block - 1) / code_block;
}

/// Local columns [begin, end) of block `b` of those.
struct CodeBlock {
    std::int64_t begin = 0, end = 0;
};
constexpr CodeBlock local_block(std::int64_t first, std::int64_t width, std::int64_t b) {
    const std::int64_t end = (b + 1) * code_block - first % code_block;
    return {b == 0 ? 0 : end - code_block, end < width ? end : width};
}

}  // namespace switchyard::kernels

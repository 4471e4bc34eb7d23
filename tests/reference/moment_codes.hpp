// Moments of AdamW as codes of 8 bits, written from the definition of bitsandbytes (create_dynamic_map() and
// its blockwise Adam): number by number, in the arithmetic of T.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace switchyard::reference {

/// The 256 values, ascending.
inline std::vector<float> make_code_map(bool has_signs) {
    std::vector<float> map{0, 1};
    for (int i = 0; i < 7; ++i) {
        const int parts = has_signs ? 1 << i : 2 << i;
        const auto boundary = [&](int k) { return 0.1 + 0.9 * k / parts; };
        for (int k = 0; k < parts; ++k) {
            const double mean = std::pow(10.0, i - 6) * (boundary(k) + boundary(k + 1)) / 2;
            map.push_back(static_cast<float>(mean));
            if (has_signs) map.push_back(static_cast<float>(-mean));
        }
    }
    std::sort(map.begin(), map.end());
    return map;
}
inline const std::vector<float>& code_map(bool has_signs) {
    static const std::vector<float> maps[] = {make_code_map(false), make_code_map(true)};
    return maps[has_signs];
}

/// The nearest code, of two the smaller one; a negative number has none whose value is 0.
inline int code_of(const std::vector<float>& map, double x) {
    const auto above = static_cast<int>(std::lower_bound(map.begin(), map.end(), x) - map.begin());
    int best = std::min(above, 255);
    if (above > 0 && x - map[above - 1] <= map[best] - x) best = above - 1;
    return x < 0 && map[best] == 0 ? best - 1 : best;
}

/// Neighbours that share a scale; `next` of a step are numbers.
template <class T>
struct CodedBlock {
    std::vector<std::uint8_t> codes;
    T scale = 0;
    std::vector<T> next;

    CodedBlock(std::size_t n, bool has_signs) : codes(n), next(n), map_(&code_map(has_signs)) {}
    T value(std::size_t i) const { return static_cast<T>((*map_)[codes[i]]) * scale; }
    void encode() {
        scale = 0;
        for (T x : next) scale = std::max(scale, std::fabs(x));
        for (std::size_t i = 0; i < codes.size(); ++i)
            codes[i] = static_cast<std::uint8_t>(code_of(*map_, scale > 0 ? next[i] / scale : T{0}));
    }

  private:
    const std::vector<float>* map_;
};

/// One step of both moments with the clipped gradients of a block: numbers first, then codes.
template <class T>
void step_codes(CodedBlock<T>& m, CodedBlock<T>& v, const std::vector<T>& gradient, double beta1,
                double beta2) {
    for (std::size_t i = 0; i < gradient.size(); ++i) {
        const T g = gradient[i], old_m = m.value(i), old_v = v.value(i);
        m.next[i] = static_cast<T>(beta1) * old_m + static_cast<T>(1 - beta1) * g;
        v.next[i] = static_cast<T>(beta2) * old_v + static_cast<T>(1 - beta2) * g * g;
    }
    m.encode();
    v.encode();
}

}  // namespace switchyard::reference

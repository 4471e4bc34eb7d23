// Private to the CPU kernels: nearest_code() by one lookup, with the same bits. The leading bits of a number
// choose an entry, which holds the code of the lowest number with these bits; adding the other bits carries
// into the code if they are above the bound that lies there, of which there is one at most.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/moment_codes.hpp"

namespace switchyard::kernels {

template <class T, bool has_signs>
class CodeTable {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    using Index = std::make_signed_t<Bits>;

  public:
    /// |x| <= 1. No number makes it read beyond its table.
    static std::uint8_t nearest(T x) {
        const Bits bits = std::bit_cast<Bits>(x), others = has_signs && x < 0 ? ~bits : bits;
        return static_cast<std::uint8_t>((entries[index(bits, x < 0)] + (others & mask)) >> shift);
    }

  private:
    static constexpr int mantissa = sizeof(T) == 4 ? 23 : 52;
    static constexpr int shift = mantissa - (has_signs ? 6 : 7);  // shares are narrower than codes
    static constexpr Bits mask = (Bits{1} << shift) - 1;
    static constexpr Index least = std::bit_cast<Bits>(T(1e-7)) >> shift;  // all below have one share
    static constexpr Index shares = (std::bit_cast<Bits>(T{1}) >> shift) - least + 1;

    /// Of the share of a number: those of negative ones come last.
    static constexpr Index index(Bits bits, bool negative) {
        const Index share = static_cast<Index>((bits & (~Bits{0} >> 1)) >> shift) - least;
        const Index held = share < 0 ? 0 : share < shares ? share : shares - 1;
        return has_signs && negative ? held + shares : held;
    }

    using Entries = std::array<Bits, (has_signs ? 2 : 1) * shares>;
    static constexpr Entries make_entries() {
        std::array<T, num_codes - 1> bound{};
        for (int code = 0; code + 1 < num_codes; ++code) bound[code] = code_bound<T>(code, has_signs);
        const auto nearest = [&](T x) { return nearest_code(x, bound.data(), zero_code(has_signs)); };
        Entries all{};
        for (Index share = 0; share < shares; ++share) {
            const Bits first = static_cast<Bits>(share + least) << shift;
            all[share] = static_cast<Bits>(nearest(std::bit_cast<T>(first))) << shift;
            if (has_signs)
                all[share + shares] = static_cast<Bits>(nearest(-std::bit_cast<T>(first + mask))) << shift;
        }
        for (int code = 0; code + 1 < num_codes; ++code) {  // what is above a bound gets the next code
            const bool negative = bound[code] < 0;
            if (negative && code + 1 == zero_code(has_signs)) continue;
            const Bits bits = std::bit_cast<Bits>(bound[code]);
            all[index(bits, negative)] += mask - ((negative ? ~bits : bits) & mask);
        }
        return all;
    }
    static constexpr Entries entries = make_entries();
};

}  // namespace switchyard::kernels

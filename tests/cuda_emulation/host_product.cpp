// Both operands are copied into tiles first: the elements of a tile that one step along k needs lie together.
// A tile of d is then summed in registers, over k in order.
#include "host_product.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "core/bf16.hpp"

namespace emulation {
namespace {

using switchyard::bf16;

template <class Sum>
struct Tile {
    typedef Sum Lanes [[gnu::vector_size(64)]];
    static constexpr std::int64_t rows = 2 * 64 / sizeof(Sum), columns = 4;
};

template <class T>
auto wide(T x) {
    if constexpr (std::is_same_v<T, bf16>)
        return switchyard::to_f32(x);
    else
        return x;
}
template <class T, class Sum>
T narrow(Sum x) {
    if constexpr (std::is_same_v<T, bf16>)
        return switchyard::to_bf16(x);
    else
        return x;
}

/// (extent / tile rounded up, k, tile), zeros beyond the extent; elements are `step` apart, those along k
/// `step_k`.
template <class In, class Sum>
std::vector<Sum> tiles_of(const void* data, std::int64_t extent, std::int64_t k, std::int64_t step,
                          std::int64_t step_k, std::int64_t tile) {
    const auto* elements = static_cast<const In*>(data);
    std::vector<Sum> tiles(static_cast<std::size_t>((extent + tile - 1) / tile * tile * k), Sum{0});
    for (std::int64_t i = 0; i < extent; ++i)
        for (std::int64_t j = 0; j < k; ++j)
            tiles[static_cast<std::size_t>((i / tile * k + j) * tile + i % tile)] =
                wide(elements[i * step + j * step_k]);
    return tiles;
}

/// sums (columns, rows) = the product of a tile of a and a tile of b.
template <class Sum>
void multiply_tiles(const Sum* a, const Sum* b, std::int64_t k, Sum* sums) {
    using Lanes = typename Tile<Sum>::Lanes;
    Lanes total[Tile<Sum>::columns][2] = {};
    for (std::int64_t l = 0; l < k; ++l, a += Tile<Sum>::rows, b += Tile<Sum>::columns) {
        Lanes rows[2];
        std::memcpy(rows, a, sizeof rows);
        for (int column = 0; column < Tile<Sum>::columns; ++column) {
            total[column][0] += rows[0] * b[column];
            total[column][1] += rows[1] * b[column];
        }
    }
    std::memcpy(sums, total, sizeof total);
}

template <class In, class Sum, class Out>
class Product {
  public:
    explicit Product(const HostProduct& p)
        : p_(p),
          a_(tiles_of<In, Sum>(p.a.data, p.m, p.k, p.a.row, p.a.column, Tile<Sum>::rows)),
          b_(tiles_of<In, Sum>(p.b.data, p.n, p.k, p.b.column, p.b.row, Tile<Sum>::columns)) {}

    void run() {
        if (p_.parts == 1)
            sum_over(0, p_.k, [&](std::int64_t i, std::int64_t j, Sum sum) { store(i, j, sum); });
        else if (p_.partial_as_result)
            run_in_parts(static_cast<Out*>(p_.partial));
        else
            run_in_parts(static_cast<Sum*>(p_.partial));
    }

  private:
    /// Calls take(i, j, sum of `count` terms from k = first on) for each element of d.
    template <class Take>
    void sum_over(std::int64_t first, std::int64_t count, Take take) {
        constexpr std::int64_t rows = Tile<Sum>::rows, columns = Tile<Sum>::columns;
        for (std::int64_t column = 0; column < p_.n; column += columns)
            for (std::int64_t row = 0; row < p_.m; row += rows) {
                Sum sums[columns * rows];
                multiply_tiles(a_.data() + row * p_.k + first * rows,
                               b_.data() + column * p_.k + first * columns, count, sums);
                for (std::int64_t j = 0; j < std::min(columns, p_.n - column); ++j)
                    for (std::int64_t i = 0; i < std::min(rows, p_.m - row); ++i)
                        take(row + i, column + j, sums[j * rows + i]);
            }
    }

    template <class Partial>
    void run_in_parts(Partial* partial) {
        const std::int64_t length = (p_.k + p_.parts - 1) / p_.parts;
        for (std::int64_t part = 0; part < p_.parts; ++part)
            sum_over(part * length, std::min(length, p_.k - part * length),
                     [&](std::int64_t i, std::int64_t j, Sum sum) {
                         partial[(part * p_.n + j) * p_.m + i] = narrow<Partial>(sum);
                     });
        for (std::int64_t j = 0; j < p_.n; ++j)
            for (std::int64_t i = 0; i < p_.m; ++i) {
                Sum sum = 0;
                for (std::int64_t part = 0; part < p_.parts; ++part)
                    sum += wide(partial[(part * p_.n + j) * p_.m + i]);
                store(i, j, sum);
            }
    }

    void store(std::int64_t i, std::int64_t j, Sum sum) {
        Sum value = static_cast<Sum>(p_.alpha) * sum;
        if (p_.beta != 0)
            value += static_cast<Sum>(p_.beta) *
                     wide(static_cast<const Out*>(p_.c.data)[i * p_.c.row + j * p_.c.column]);
        static_cast<Out*>(p_.d.data)[i * p_.d.row + j * p_.d.column] = narrow<Out>(value);
    }

    const HostProduct& p_;
    std::vector<Sum> a_, b_;
};

}  // namespace

void multiply(const HostProduct& p) {
    if (p.a.number == Number::f64) return Product<double, double, double>(p).run();
    if (p.a.number == Number::f32) return Product<float, float, float>(p).run();
    if (p.d.number == Number::f32) return Product<bf16, float, float>(p).run();
    Product<bf16, float, bf16>(p).run();
}

}  // namespace emulation

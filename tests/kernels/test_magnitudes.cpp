// Selection of magnitudes byte by byte against sorting, and what is dropped against comparing numbers: several
// rectangles in one call, listed rows, ties, zeros, signs, and parts of one tensor on several "ranks".
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/magnitudes.hpp"
#include "reference/magnitudes.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

using kernels::magnitude_bins;
using kernels::RowPart;
using kernels::Rows;

/// Some rows of a matrix, without its first column and with padding behind.
struct Item {
    HostTensor matrix, list;
    std::vector<std::int32_t> rows;
    std::int64_t width;

    Item(HostTensor values, std::vector<std::int32_t> chosen, std::int64_t columns)
        : matrix(std::move(values)),
          list(HostTensor::integers({static_cast<std::int64_t>(chosen.size())}, chosen)),
          rows(std::move(chosen)),
          width(columns) {}
    RowPart part() const { return {matrix, rows.empty() ? Rows::range(0, 0) : Rows::listed(list), 1, width}; }
    std::vector<std::int64_t> places() const {
        std::vector<std::int64_t> all;
        for (const std::int32_t row : rows)
            for (std::int64_t j = 0; j < width; ++j) all.push_back(row * matrix.shape()[1] + 1 + j);
        return all;
    }
    Values values() const {
        Values all;
        for (const std::int64_t place : places()) all.push_back(matrix.at(place));
        return all;
    }
};

/// Normal numbers with ties, zeros of both signs, and a wide range of exponents.
HostTensor numbers(DType dtype, Shape shape, const std::string& name) {
    HostTensor x = HostTensor::normal(dtype, shape, name);
    for (std::int64_t i = 0; i < x.size(); ++i) {
        if (i % 5 == 1) x.set(i, i % 2 ? 0.0 : -0.0);
        if (i % 7 == 2) x.set(i, i % 2 ? 0.25 : -0.25);
        if (i % 11 == 3) x.set(i, std::ldexp(x.at(i), static_cast<int>(i % 61) - 40));
    }
    return x;
}

std::vector<Item> items_of(DType dtype) {
    const std::int64_t wide = watched() ? 300 : 2500;
    std::vector<Item> items;
    items.emplace_back(numbers(dtype, {4, wide + 3}, "wide"), std::vector<std::int32_t>{3, 0, 2}, wide);
    items.emplace_back(numbers(dtype, {9, 20}, "narrow"), std::vector<std::int32_t>{5}, 7);
    items.emplace_back(numbers(dtype, {3, 20}, "none"), std::vector<std::int32_t>{}, 7);
    items.emplace_back(numbers(dtype, {9, 37}, "many"), std::vector<std::int32_t>{8, 1, 2, 3, 4, 5, 6, 7, 0},
                       33);
    return items;
}

/// The bits of the elements of these ranks, from histograms of all `items` in each call. With `split` > 1
/// counts are sums over that many calls for some of the rows each, as over ranks.
std::vector<std::uint64_t> select(const std::vector<Item>& items, const std::vector<std::int64_t>& ranks,
                                  int split = 1) {
    const auto count = static_cast<std::int64_t>(items.size());
    const DType dtype = items.front().matrix.dtype();
    HostTensor found(DType::i64, {count, 2});
    for (std::int64_t i = 0; i < count; ++i) found.set_bits(2 * i, 0), found.set_bits(2 * i + 1, ranks[i]);
    const Tensor selection = found;
    for (int byte = 0; byte < kernels::magnitude_bytes(dtype); ++byte) {
        const HostTensor sum(DType::f64, {count, magnitude_bins});
        for (int part = 0; part < split; ++part) {
            std::vector<Item> mine;
            for (const Item& item : items) {
                std::vector<std::int32_t> rows;
                for (std::size_t i = 0; i < item.rows.size(); ++i)
                    if (static_cast<int>(i) % split == part) rows.push_back(item.rows[i]);
                mine.emplace_back(item.matrix.clone(), rows, item.width);
            }
            std::vector<RowPart> parts;
            for (const Item& item : mine) parts.push_back(item.part());
            const HostTensor counts = HostTensor::normal(DType::f64, {count, magnitude_bins}, "old");
            kernels::magnitude_histogram(parts, byte, selection, counts);
            kernels::add(counts, sum);
        }
        kernels::select_byte(sum, selection);
    }
    std::vector<std::uint64_t> bits;
    for (std::int64_t i = 0; i < count; ++i) bits.push_back(found.bits(2 * i));
    return bits;
}

double number_of(DType dtype, std::uint64_t bits) {
    return dtype == DType::f64 ? std::bit_cast<double>(bits)
                               : std::bit_cast<float>(static_cast<std::uint32_t>(bits));
}

class Magnitudes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Magnitudes, ::testing::Values(DType::f32, DType::f64));

TEST_P(Magnitudes, TheOneOfAnyRankIsThatOfSorting) {
    const std::vector<Item> items = items_of(GetParam());
    for (const double fraction : watched() ? Values{0.9} : Values{0.0, 0.3, 0.5, 0.9, 0.99, 1.0}) {
        std::vector<std::int64_t> ranks;
        for (const Item& item : items)
            ranks.push_back(static_cast<std::int64_t>(
                std::floor(fraction * std::max(0.0, static_cast<double>(item.places().size()) - 1))));
        for (const int split : watched() ? std::vector<int>{1} : std::vector<int>{1, 3}) {
            const auto bits = select(items, ranks, split);
            for (std::size_t i = 0; i < items.size(); ++i) {
                if (items[i].rows.empty()) continue;
                EXPECT_EQ(number_of(GetParam(), bits[i]),
                          reference::magnitude_of_rank(items[i].values(),
                                                       static_cast<std::size_t>(ranks[i])))
                    << "item " << i << ", rank " << ranks[i];
            }
        }
    }
}

TEST_P(Magnitudes, CountsAreThoseOfTheElementsWithTheBytesFound) {
    // 1.0 and 1.5 share the higher byte; -2.0 has the next one.
    const bool f64 = GetParam() == DType::f64;
    HostTensor x(GetParam(), {1, 6}, {1.0, -2.0, 1.5, 1.0, 0.0, 1e-3});
    const RowPart part = kernels::whole_rows(static_cast<Tensor>(x));
    const HostTensor counts(DType::f64, {1, magnitude_bins});
    const HostTensor found(DType::i64, {1, 2}, {0, 0});
    kernels::magnitude_histogram({&part, 1}, 0, found, counts);
    EXPECT_EQ(counts.at(0x3F), 3 + (f64 ? 1 : 0));  // 1e-3 is 0x3F50... in f64, 0x3A83... in f32
    EXPECT_EQ(counts.at(0x40), 1);
    EXPECT_EQ(counts.at(0), 1);
    const HostTensor next(DType::i64, {1, 2}, {0x3F, 0});
    kernels::magnitude_histogram({&part, 1}, 1, next, counts);
    EXPECT_EQ(counts.at(f64 ? 0xF0 : 0x80), 2);  // 0x3FF0..., 0x3F80...
    EXPECT_EQ(counts.at(f64 ? 0xF8 : 0xC0), 1);
    double all = 0;
    for (double count : counts.values()) all += count;
    EXPECT_EQ(all, 3 + (f64 ? 1 : 0));
}

TEST_P(Magnitudes, WhatDoesNotExceedTheLimitIsDropped) {
    for (const bool own_keys : {true, false}) {
        std::vector<Item> items = items_of(GetParam()), keys;
        // Of the other type, in other rows, and with other signs.
        const DType other = GetParam() == DType::f64 ? DType::f32 : DType::f64;
        for (const Item& item : items)
            keys.emplace_back(numbers(other, {item.matrix.shape()[0] + 1, item.width + 1}, "keys"), item.rows,
                              item.width);
        std::vector<Values> expected;
        HostTensor limits(DType::i64, {static_cast<std::int64_t>(items.size()), 2});
        for (std::size_t i = 0; i < items.size(); ++i) {
            const Item& key = own_keys ? items[i] : keys[i];
            // The limit is the magnitude of an element: that one is dropped, and its equals.
            const double limit =
                key.rows.empty() ? 0 : reference::magnitude_of_rank(key.values(), key.places().size() / 2);
            const std::uint64_t bits = key.matrix.dtype() == DType::f64
                                           ? std::bit_cast<std::uint64_t>(limit)
                                           : std::bit_cast<std::uint32_t>(static_cast<float>(limit));
            limits.set_bits(2 * static_cast<std::int64_t>(i), bits);
            Values all = items[i].matrix.values();
            const Values kept = reference::above(items[i].values(), key.values(), limit);
            const auto places = items[i].places();
            for (std::size_t j = 0; j < places.size(); ++j) all[places[j]] = kept[j];
            expected.push_back(all);
        }
        std::vector<kernels::Dropped> dropped;
        for (std::size_t i = 0; i < items.size(); ++i)
            dropped.push_back({items[i].part(), own_keys ? items[i].part() : keys[i].part()});
        kernels::drop_up_to(dropped, limits);
        for (std::size_t i = 0; i < items.size(); ++i)
            EXPECT_EQ(items[i].matrix.values(), expected[i]) << "item " << i;
    }
}

TEST_P(Magnitudes, DoNotDependOnTheNumberOfThreads) {
    if (watched()) GTEST_SKIP() << "no host threads are at work in kernels of a device";
    const std::vector<Item> items = items_of(GetParam());
    const std::vector<std::int64_t> ranks{1000, 3, 0, 100};
    const auto alone = [&] {
        const Threads scope(1);
        return select(items, ranks);
    }();
    for (int count : {2, 3, 8}) {
        const Threads scope(count);
        EXPECT_EQ(select(items, ranks), alone);
    }
}

TEST(MagnitudesOfNothing, AreNotAnError) {
    const HostTensor counts(DType::f64, {0, magnitude_bins}), found(DType::i64, {0, 2});
    kernels::magnitude_histogram({}, 0, found, counts);
    kernels::select_byte(counts, found);
    kernels::drop_up_to({}, found);
    const HostTensor x(DType::bf16, {1, 4});
    const RowPart part = kernels::whole_rows(static_cast<Tensor>(x));
    const HostTensor one(DType::f64, {1, magnitude_bins}), of_one(DType::i64, {1, 2});
    EXPECT_THROW(kernels::magnitude_histogram({&part, 1}, 0, of_one, one), InternalError);
}

}  // namespace
}  // namespace switchyard::test

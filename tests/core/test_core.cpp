// Shapes, views, the arena, bf16 and Philox.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <numbers>
#include <set>

#include "core/arena.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/shard.hpp"
#include "core/tensor.hpp"

namespace switchyard {
namespace {

TEST(DTypes, HaveSizesAndNames) {
    EXPECT_EQ(size_of(DType::f64), 8u);
    EXPECT_EQ(size_of(DType::i64), 8u);
    EXPECT_EQ(size_of(DType::f32), 4u);
    EXPECT_EQ(size_of(DType::i32), 4u);
    EXPECT_EQ(size_of(DType::bf16), 2u);
    EXPECT_EQ(size_of(DType::i16), 2u);
    EXPECT_EQ(size_of(DType::u8), 1u);
    for (DType dtype : {DType::f32, DType::bf16, DType::f64})
        EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    EXPECT_THROW(dtype_from_name("i32"), UserError);
    EXPECT_THROW(dtype_from_name("half"), UserError);
    EXPECT_EQ(accumulate_type(DType::bf16), DType::f32);
    EXPECT_EQ(accumulate_type(DType::f32), DType::f32);
    EXPECT_EQ(accumulate_type(DType::f64), DType::f64);
}

TEST(Shapes, KnowSizeTextAndEquality) {
    const Shape shape{3, 4, 5};
    EXPECT_EQ(shape.rank(), 3);
    EXPECT_EQ(shape.size(), 60);
    EXPECT_EQ(shape.text(), "3x4x5");
    EXPECT_TRUE((shape == Shape{3, 4, 5}));
    EXPECT_FALSE((shape == Shape{3, 20}));
    EXPECT_FALSE((Shape{3} == Shape{3, 1}));
    EXPECT_EQ((Shape{3, 0}).size(), 0);
    EXPECT_EQ((Shape{1 << 20, 1 << 20}).size(), std::int64_t{1} << 40);
    EXPECT_THROW((Shape{1, 2, 3, 4, 5}), InternalError);
    EXPECT_THROW((Shape{-1}), InternalError);
}

TEST(Tensors, ShareMemoryWithTheirViews) {
    float data[24] = {};
    const Tensor tensor(data, DType::f32, {4, 3, 2});
    EXPECT_EQ(tensor.bytes(), sizeof data);
    const Tensor rows = tensor.rows(1, 2);
    EXPECT_TRUE((rows.shape() == Shape{2, 3, 2}));
    EXPECT_EQ(rows.data<float>(), data + 6);
    EXPECT_EQ(tensor.rows(4, 0).size(), 0);
    EXPECT_TRUE((Tensor(data, DType::f32, {24}).rows(3, 2).shape() == Shape{2}));
    EXPECT_TRUE((Tensor(data, DType::f32, {2, 3, 2, 2}).rows(1, 1).shape() == Shape{1, 3, 2, 2}));
    EXPECT_THROW(tensor.rows(3, 2), InternalError);
    EXPECT_THROW(tensor.rows(-1, 1), InternalError);
    EXPECT_EQ(tensor.reshape({6, 4}).raw(), data);
    EXPECT_THROW(tensor.reshape({5, 5}), InternalError);
    EXPECT_EQ(tensor.view(DType::bf16, {48}).bytes(), 96u);
    EXPECT_THROW(tensor.view(DType::f64, {13}), InternalError);
}

TEST(Tensors, AreEmptyByDefaultAndWithoutElements) {
    EXPECT_TRUE(Tensor().empty());
    EXPECT_TRUE(Tensor(nullptr, DType::f32, {0, 3}).empty());
    EXPECT_TRUE(Tensor(nullptr, DType::f32, {0, 3}).rows(0, 0).empty());
    EXPECT_FALSE(Tensor(nullptr, DType::f32, {1}).empty());
    EXPECT_EQ(Tensor(nullptr, DType::f32, {8, 2}).rows(2, 3).raw(), nullptr);  // of a measuring arena
}

TEST(Shards, WithoutRowsOrColumnsAreEmpty) {
    EXPECT_TRUE((Shard{"w", {4, 6}, 4, 0, 0, 6}).empty());
    EXPECT_FALSE((Shard{"w", {4, 6}, 0, 0, 4, 6}).empty());
    EXPECT_EQ((Shard{"w", {4, 6}}).global_cols(), 6);
    EXPECT_EQ((Shard{"n", {4}}).global_cols(), 1);
}

struct Built {
    Tensor weight, shared, moments, bytes, again;
    explicit Built(Arena& arena)
        : weight(arena.take(MemoryClass::frozen, DType::f32, {3, 5})),
          shared(arena.shared(DType::f32, {100})),
          moments(arena.take(MemoryClass::moments, DType::f64, {7})),
          bytes(arena.take(MemoryClass::activations, DType::i16, {1})),
          again(arena.shared(DType::bf16, {10})) {}
};

TEST(Arenas, AllocateWhatTheyMeasured) {
    Arena measured;
    const Built plan(measured);
    EXPECT_TRUE(measured.measuring());
    EXPECT_EQ(plan.weight.raw(), nullptr);
    EXPECT_EQ(measured.bytes(MemoryClass::frozen), 64u);  // 60 bytes, rounded up to the alignment
    EXPECT_EQ(measured.bytes(MemoryClass::moments), 64u);
    EXPECT_EQ(measured.total_bytes(), 3 * 64u + 448u);

    Arena arena = Arena::allocate(measured);
    const Built real(arena);
    EXPECT_FALSE(arena.measuring());
    EXPECT_EQ(arena.total_bytes(), measured.total_bytes());
    EXPECT_EQ(arena.text(), measured.text());
    std::set<void*> starts;
    for (Tensor t : {real.weight, real.shared, real.moments, real.bytes}) {
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.raw()) % 64, 0u);
        starts.insert(t.raw());
        for (std::size_t i = 0; i < t.bytes(); ++i) ASSERT_EQ(t.data<char>()[i], 0);
        std::fill_n(t.data<char>(), t.bytes(), 1);  // a sanitizer reports a write outside the allocation
    }
    EXPECT_EQ(starts.size(), 4u);
    EXPECT_EQ(real.again.raw(), real.shared.raw());
    EXPECT_EQ(real.bytes.data<std::int16_t>()[0], 0x0101);
    EXPECT_THROW(arena.take(MemoryClass::bank, DType::f32, {1}), InternalError);
    EXPECT_THROW(arena.shared(DType::f32, {113}), InternalError);
}

TEST(Arenas, SayWhatTheyCouldNotGet) {
    Arena measured;
    measured.take(MemoryClass::bank, DType::f64, {std::int64_t{1} << 50});
    try {
        Arena::allocate(measured);
        FAIL() << "eight pebibytes were to be had";
    } catch (const UserError& error) {
        EXPECT_NE(std::string(error.what()).find("bank"), std::string::npos) << error.what();
    }
}

TEST(Bf16, EveryValueSurvivesTheWayThroughF32) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const bf16 value{static_cast<std::uint16_t>(bits)};
        const float wide = to_f32(value);
        if (wide != wide)
            EXPECT_TRUE(to_f32(to_bf16(wide)) != to_f32(to_bf16(wide)));
        else
            ASSERT_EQ(to_bf16(wide).bits, bits);
    }
}

TEST(Bf16, RoundsToNearestEven) {
    EXPECT_EQ(to_f32(to_bf16(1 + 0x1p-8f)), 1.0f);             // tie, down to even
    EXPECT_EQ(to_f32(to_bf16(1 + 3 * 0x1p-8f)), 1 + 0x1p-6f);  // tie, up to even
    EXPECT_EQ(to_f32(to_bf16(1 + 0x1p-8f + 0x1p-23f)), 1 + 0x1p-7f);
    EXPECT_EQ(to_f32(to_bf16(-1 - 0x1p-8f)), -1.0f);
    EXPECT_EQ(to_f32(to_bf16(3.4e38f)), INFINITY);       // beyond the largest bf16
    EXPECT_EQ(to_f32(to_bf16(0x1p-133f * 0.5f)), 0.0f);  // half the smallest subnormal
    // A NaN whose payload is in the cut-off half must stay a NaN.
    EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::bit_cast<float>(0x7F800001u)))));
}

TEST(Philox, GivesTheKnownAnswers) {
    using Words = std::array<std::uint32_t, 4>;
    // Random123's kat_vectors, philox4x32-10.
    EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformNumbersReachNeitherEnd) {
    EXPECT_GT(uniform_from_words(0, 0), 0.0);
    EXPECT_LT(uniform_from_words(~0u, ~0u), 1.0);
    EXPECT_EQ(uniform_from_words(0x80000000u, 0), 0.5 + 0x1p-53);
    EXPECT_EQ(uniform(9, 6), uniform_pair(9, 3).first);
    EXPECT_EQ(uniform(9, 7), uniform_pair(9, 3).second);
    EXPECT_EQ(normal(9, 6), normal_pair(9, 3).first);
    EXPECT_EQ(normal(9, 7), normal_pair(9, 3).second);
}

TEST(Philox, LogarithmSineAndCosineAreAccurate) {
    double log_error = 0, turn_error = 0;
    for (std::uint64_t i = 0; i < 200000; ++i) {
        const double t = uniform(7, i);
        for (double x : {t, std::pow(t, 40), 1 - t * 0x1p-20, 0x1p-53})
            log_error = std::max(log_error, std::fabs(portable_log(x) / std::log(x) - 1));
        const SineCosine turn = sine_cosine_of_turn(t);
        const long double angle = 2 * std::numbers::pi_v<long double> * t;
        turn_error = std::max({turn_error, std::fabs(turn.sine - static_cast<double>(std::sin(angle))),
                               std::fabs(turn.cosine - static_cast<double>(std::cos(angle)))});
    }
    EXPECT_LT(log_error, 2 * 0x1p-52);
    EXPECT_LT(turn_error, 2 * 0x1p-52);
    EXPECT_EQ(portable_log(1), 0);
    EXPECT_EQ(sine_cosine_of_turn(0.75).sine, -1);
    EXPECT_EQ(sine_cosine_of_turn(0.5).cosine, -1);
}

TEST(Philox, NormalNumbersHaveTheSameBitsOnEveryMachine) {
    const double expected[] = {0x1.499329e94d145p-2, -0x1.cd158b51e6853p+0, -0x1.a4aca16807b9dp-1,
                               0x1.1e2a1645609ecp+0};
    for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(normal(stream_key(1, "golden"), i), expected[i]);
    EXPECT_EQ(uniform(stream_key(1, "golden"), 0), 0x1.8012168004674p-3);
}

TEST(Philox, BoundedIntegersCoverTheirRangeEvenly) {
    constexpr std::uint64_t bound = 7, draws = 70000;
    std::array<int, bound> counts{};
    for (std::uint64_t i = 0; i < draws; ++i) ++counts.at(uniform_below(3, i, bound));
    for (int count : counts) EXPECT_NEAR(count, 10000, 5 * std::sqrt(10000.0));
}

TEST(Philox, StreamsDependOnSeedAndName) {
    static_assert(stream_key(1, "a") == stream_key(1, "a"));
    std::set<std::uint64_t> keys;
    for (std::uint64_t seed = 0; seed < 50; ++seed)
        for (const char* name : {"", "a", "b", "ab", "ba"}) keys.insert(stream_key(seed, name));
    EXPECT_EQ(keys.size(), 250u);
}

TEST(Errors, CarryTheFormattedMessage) {
    EXPECT_NO_THROW(require(true, "never"));
    EXPECT_NO_THROW(internal_check(true, "never"));
    try {
        require(1 > 2, "{} ranks (tp is {})", 3, 2);
        FAIL();
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "3 ranks (tp is 2)");
    }
    EXPECT_THROW(internal_check(false, "broken"), InternalError);
}

TEST(Errors, ErrnoIsReadAfterTheCallThatFails) {
    errno = EBUSY;
    try {
        require(::open("/no/such/file", O_RDONLY) >= 0, "{}", system_reason);
        FAIL();
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), std::strerror(ENOENT));
    }
}

}  // namespace
}  // namespace switchyard

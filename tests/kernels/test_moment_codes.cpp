// AdamW on moments that are codes of 8 bits: maps, codes and scales have the bits of the definition
// (reference/moment_codes.hpp), steps are made with the numbers before they become codes, and blocks that
// ranks share have the bits that they have on one rank.
#include "kernels/adamw.hpp"
#include "kernels/moment_codes.hpp"
#include "reference/adamw.hpp"
#include "reference/moment_codes.hpp"
#include "support/tensors.hpp"
#include "support/threads.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace moment_codes_test {

using kernels::code_block;
using kernels::num_code_blocks;

TEST(MomentCodes, MapsAreThoseOfTheDefinition) {
    for (const bool has_signs : {true, false}) {
        const std::vector<float> map = reference::code_map(has_signs);
        ASSERT_EQ(map.size(), 256u);
        for (int code = 0; code < 256; ++code) {
            EXPECT_EQ(kernels::code_value(code, has_signs), map[static_cast<std::size_t>(code)]) << code;
            if (code > 0) {
                EXPECT_GT(map[static_cast<std::size_t>(code)], map[static_cast<std::size_t>(code - 1)]);
            }
        }
        EXPECT_EQ(kernels::code_value(kernels::zero_code(has_signs), has_signs), 0);
    }
    // By hand: of signs, 0.1 to 1 in one part times 1e-6, and in 64 parts; without, in 2 parts and in 128.
    EXPECT_FLOAT_EQ(kernels::code_value(128, true), 0.55e-6f);
    EXPECT_FLOAT_EQ(kernels::code_value(126, true), -0.55e-6f);
    EXPECT_FLOAT_EQ(kernels::code_value(0, true), -(1 - 0.45f / 64));
    EXPECT_FLOAT_EQ(kernels::code_value(1, false), 0.325e-6f);
    EXPECT_FLOAT_EQ(kernels::code_value(254, false), 1 - 0.45f / 128);
    EXPECT_EQ(kernels::code_value(255, true), 1);
    EXPECT_EQ(kernels::code_value(255, false), 1);
}

template <class T>
void expect_nearest(bool has_signs) {
    const std::vector<float> map = reference::code_map(has_signs);
    std::vector<T> bound;
    for (int code = 0; code < 255; ++code) bound.push_back(kernels::code_bound<T>(code, has_signs));
    const auto expect = [&](T x) {
        if (std::fabs(x) > 1 || (!has_signs && x < 0)) return;
        ASSERT_EQ(kernels::nearest_code(x, bound.data(), kernels::zero_code(has_signs)),
                  reference::code_of(map, x))
            << x;
    };
    for (int code = 0; code < 255; ++code)
        for (const T x : {bound[code], std::nextafter(bound[code], T{2}), std::nextafter(bound[code], T{-2}),
                          static_cast<T>(map[code])})
            expect(x);
    for (int i = 0; i < 1000; ++i) {
        const T x = static_cast<T>(std::pow(10.0, -8 * uniform(1, i)) * (2 * uniform(2, i) - 1));
        expect(x), expect(-x);
    }
    for (const T x : {T{0}, T{1}, T{-1}, T(1e-30), T(-1e-30)}) expect(x);
}

TEST(MomentCodes, AreTheNearestOnes) {
    for (const bool has_signs : {true, false}) {
        expect_nearest<float>(has_signs);
        expect_nearest<double>(has_signs);
    }
    // Of bitsandbytes: a positive number may become zero, a negative one may not.
    const auto code = [](double x) { return reference::code_of(reference::code_map(true), x); };
    EXPECT_EQ(code(1e-9), 127);
    EXPECT_EQ(code(-1e-9), 126);
    EXPECT_EQ(code(-1), 0) << "-1 has no value of its own";
}

/// Owned rows in another order than in the gradient, in its columns column ... column + width - 1, which
/// begin at column whole_column of the whole row.
struct Layout {
    DType dtype;
    bool one_counter;
    std::vector<std::int32_t> gradient_rows;
    std::int64_t width, whole_column, column, stride, num_rows;

    std::int64_t owned() const { return static_cast<std::int64_t>(gradient_rows.size()); }
    std::int64_t blocks() const { return num_code_blocks(whole_column, width); }
};

constexpr kernels::AdamWSettings settings{
    .lr = 0.02, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1};

struct State {
    HostTensor master, m, v, m_scale, v_scale, step, frozen, gradient, value, rows, maxima;

    explicit State(const Layout& l) {
        const DType wide = accumulate_type(l.dtype);
        const std::int64_t owned = l.owned();
        master = HostTensor::normal(wide, {owned, l.width}, "master");
        m = HostTensor(DType::u8, {owned, l.width});
        v = m.clone();
        m_scale = HostTensor(wide, {owned, l.blocks()});
        v_scale = m_scale.clone();
        step = HostTensor(DType::i32, {l.one_counter ? 1 : owned});
        for (std::int64_t i = 0; i < step.size(); ++i) step.set(i, static_cast<double>(i % 3 * 40));
        frozen = HostTensor(DType::i32, {owned});
        for (std::int64_t i = 0; i < owned; ++i) frozen.set(i, i % 2 ? 5 : 0);
        gradient = HostTensor(wide, {l.num_rows, l.stride});
        value = HostTensor::normal(l.dtype, {l.num_rows, l.stride}, "value");
        rows = HostTensor::integers({owned}, l.gradient_rows);
        maxima = HostTensor(wide, {owned, 4});
    }
    kernels::AdamWRows view(const Layout& l, bool shared = false) const {
        return {master,
                m,
                v,
                step,
                frozen,
                gradient,
                value,
                kernels::Rows::listed(rows),
                l.column,
                settings,
                m_scale,
                v_scale,
                l.whole_column,
                shared ? Tensor(maxima) : Tensor{}};
    }
};

/// Normal numbers over many orders of magnitude, one column in eleven zero.
HostTensor gradient_of(const Layout& l, int t) {
    HostTensor g =
        HostTensor::normal(accumulate_type(l.dtype), {l.num_rows, l.stride}, "g" + std::to_string(t));
    for (std::int64_t i = 0; i < g.size(); ++i) {
        g.set(i, g.at(i) * std::pow(10.0, static_cast<double>(i % 7) - 6));
        if (i % 11 == 3) g.set(i, 0);
    }
    return g;
}

/// The blocks of all rows beside the kernels' tensors.
template <class T>
struct Reference {
    Layout layout;
    std::vector<reference::CodedBlock<T>> m, v;  // by row and block
    std::vector<reference::AdamWNumber> numbers;

    Reference(const Layout& l, const HostTensor& master) : layout(l), numbers(master.values().size()) {
        for (std::size_t i = 0; i < numbers.size(); ++i)
            numbers[i].value = master.at(static_cast<std::int64_t>(i));
        for (std::int64_t i = 0; i < l.owned() * l.blocks(); ++i) {
            const auto b = kernels::local_block(l.whole_column, l.width, i % l.blocks());
            m.emplace_back(b.end - b.begin, true);
            v.emplace_back(b.end - b.begin, false);
        }
    }
    /// steps: of the counters, after the step.
    void step(const HostTensor& gradient, double clip, const std::vector<int>& steps) {
        const Layout& l = layout;
        for (std::int64_t i = 0; i < l.owned() * l.blocks(); ++i) {
            const std::int64_t row = i / l.blocks();
            const bool frozen = row % 2 != 0;
            const auto [begin, end] = kernels::local_block(l.whole_column, l.width, i % l.blocks());
            std::vector<T> g;
            for (std::int64_t j = begin; j < end; ++j)
                g.push_back(static_cast<T>(frozen ? 0 : clip) *
                            static_cast<T>(gradient.at(l.gradient_rows[row] * l.stride + l.column + j)));
            auto& block_m = m[static_cast<std::size_t>(i)];
            auto& block_v = v[static_cast<std::size_t>(i)];
            reference::step_codes(block_m, block_v, g, settings.beta1, settings.beta2);
            for (std::int64_t j = begin; j < end; ++j) {
                const double first = block_m.next[j - begin], second = block_v.next[j - begin];
                const int t = steps[l.one_counter ? 0 : row];
                double& p = numbers[static_cast<std::size_t>(row * l.width + j)].value;
                p -= settings.lr *
                     (first / (1 - std::pow(settings.beta1, t)) /
                          (std::sqrt(second / (1 - std::pow(settings.beta2, t))) + settings.eps) +
                      (frozen ? 0 : settings.weight_decay) * p);
            }
        }
    }
    void compare(const State& s) const {
        const Layout& l = layout;
        for (std::int64_t i = 0; i < l.owned() * l.blocks(); ++i) {
            const auto [begin, end] = kernels::local_block(l.whole_column, l.width, i % l.blocks());
            const auto at = static_cast<std::size_t>(i);
            ASSERT_EQ(s.m_scale.at(i), m[at].scale) << "block " << i;
            ASSERT_EQ(s.v_scale.at(i), v[at].scale) << "block " << i;
            for (std::int64_t j = begin; j < end; ++j) {
                const std::int64_t element = i / l.blocks() * l.width + j;
                ASSERT_EQ(s.m.at(element), m[at].codes[static_cast<std::size_t>(j - begin)]) << element;
                ASSERT_EQ(s.v.at(element), v[at].codes[static_cast<std::size_t>(j - begin)]) << element;
            }
        }
    }
    Values masters() const {
        Values all;
        for (const auto& number : numbers) all.push_back(number.value);
        return all;
    }
};

class CodedAdamW : public ::testing::TestWithParam<Layout> {};

template <class T>
void expect_reference(const Layout& l) {
    State s(l);
    Reference<T> expected(l, s.master);
    std::vector<int> steps;
    for (std::int64_t i = 0; i < s.step.size(); ++i) steps.push_back(static_cast<int>(s.step.at(i)));
    const Values untouched = s.value.values();
    const int num_steps = watched() ? 2 : 3;
    for (int t = 0; t < num_steps; ++t) {
        const double clip = t % 2 ? 0.375 : 1;
        s.gradient = gradient_of(l, t);
        const kernels::AdamWRows rows = s.view(l);
        kernels::adamw({&rows, 1}, clip_of(clip, 1));
        for (int& step : steps) ++step;
        expected.step(gradient_of(l, t), clip, steps);
        expected.compare(s);
    }
    EXPECT_TRUE(close(s.master, expected.masters(), 4, num_steps));
    for (std::int64_t i = 0; i < s.step.size(); ++i) EXPECT_EQ(s.step.at(i), steps[i]);
    HostTensor copies(l.dtype, {l.num_rows, l.stride}, untouched);
    for (std::int64_t i = 0; i < l.owned(); ++i)
        for (std::int64_t j = 0; j < l.width; ++j)
            copies.set(l.gradient_rows[i] * l.stride + l.column + j, s.master.at(i * l.width + j));
    EXPECT_TRUE(same_bits(s.value, copies));
}

TEST_P(CodedAdamW, HasTheBitsOfTheDefinition) {
    const Layout& l = GetParam();
    l.dtype == DType::f64 ? expect_reference<double>(l) : expect_reference<float>(l);
}

TEST_P(CodedAdamW, WithoutAMasterTheValueIsTheDirection) {
    const Layout& l = GetParam();
    State s(l), other(l);
    for (int t = 0; t < 2; ++t) {
        s.gradient = gradient_of(l, t);
        other.gradient = gradient_of(l, t);
        other.master = HostTensor(other.master.dtype(), other.master.shape());  // from 0 the step is added
        kernels::AdamWRows rows = s.view(l), with_master = other.view(l);
        rows.master = {};
        with_master.settings.lr = -1, with_master.settings.weight_decay = 0;
        kernels::adam_direction({&rows, 1}, clip_of(0.5, 1));
        kernels::adamw({&with_master, 1}, clip_of(0.5, 1));
    }
    for (HostTensor State::*part : {&State::m, &State::v, &State::m_scale, &State::v_scale})
        EXPECT_TRUE(same_bits(s.*part, other.*part));
    EXPECT_EQ(s.value.values(), other.value.values());
}

std::vector<Layout> layouts() {
    std::vector<Layout> layouts;
    const std::int64_t wide = watched() ? 301 : 1337;
    bool one_counter = false;
    for (DType dtype : compute_types) {
        if (watched() && dtype == DType::f64) continue;
        layouts.push_back({dtype, one_counter, {3, 0, 5}, 7, 0, 2, 13, 6});
        layouts.push_back({dtype, !one_counter, {3, 0, 5}, 7, 252, 2, 13, 6});  // in two blocks
        layouts.push_back({dtype, !one_counter, {1, 0}, wide, 0, 0, wide, 2});
        layouts.push_back({dtype, one_counter, {0}, 256, 512, 0, 256, 1});
        layouts.push_back({dtype, !one_counter, {1}, 300, 1100, 5, 307, 3});
        one_counter = !one_counter;
    }
    return layouts;
}
INSTANTIATE_TEST_SUITE_P(Layouts, CodedAdamW, ::testing::ValuesIn(layouts()));

TEST(CodedAdamWSkips, NothingHappensWhenTheGradientIsNotFinite) {
    const Layout l{DType::bf16, false, {3, 0, 5}, 7, 252, 2, 13, 6};
    State s(l);
    s.gradient = gradient_of(l, 0);
    const kernels::AdamWRows first = s.view(l);
    kernels::adamw({&first, 1}, clip_of(1, 1));
    State before(l);
    for (HostTensor State::*part : {&State::m, &State::v, &State::m_scale, &State::v_scale, &State::value,
                                    &State::master, &State::step})
        before.*part = (s.*part).clone();
    s.gradient = HostTensor(s.gradient.dtype(), {l.num_rows, l.stride},
                            Values(static_cast<std::size_t>(l.num_rows * l.stride), NAN));
    const kernels::AdamWRows rows = s.view(l);
    kernels::adamw({&rows, 1}, clip_of(NAN, 0));
    for (HostTensor State::*part : {&State::m, &State::v, &State::m_scale, &State::v_scale, &State::value,
                                    &State::master, &State::step})
        EXPECT_TRUE(same_bits(s.*part, before.*part));
}

/// With both betas 0 the moments are g and g^2: numbers at the middle between two codes and beside it, in
/// blocks whose largest magnitude is 1.
template <class T>
void expect_bounds(DType dtype) {
    std::vector<T> numbers;
    const auto add = [&](T x) {
        for (const T y : {x, std::nextafter(x, T{2}), std::nextafter(x, T{-2})}) {
            if (numbers.size() % code_block == 0) numbers.push_back(1);
            numbers.push_back(y);
        }
    };
    for (int code = 0; code < 255; ++code) {
        add(kernels::code_bound<T>(code, true));
        add(std::sqrt(kernels::code_bound<T>(code, false)));
    }
    const auto width = static_cast<std::int64_t>(numbers.size());
    const Layout l{dtype, true, {0}, width, 0, 0, width, 1};
    State s(l);
    for (std::int64_t j = 0; j < width; ++j)
        s.gradient.set(j, static_cast<double>(numbers[static_cast<std::size_t>(j)]));
    kernels::AdamWRows rows = s.view(l);
    rows.settings.beta1 = rows.settings.beta2 = 0;
    kernels::adamw({&rows, 1}, clip_of(1, 1));
    for (std::int64_t begin = 0; begin < width; begin += code_block) {
        const std::vector<T> g(numbers.begin() + begin,
                               numbers.begin() + std::min(width, begin + code_block));
        reference::CodedBlock<T> m(g.size(), true), v(g.size(), false);
        reference::step_codes(m, v, g, 0, 0);
        EXPECT_EQ(m.scale, 1);
        for (std::size_t j = 0; j < g.size(); ++j) {
            ASSERT_EQ(s.m.at(begin + static_cast<std::int64_t>(j)), m.codes[j]) << g[j];
            ASSERT_EQ(s.v.at(begin + static_cast<std::int64_t>(j)), v.codes[j]) << g[j] * g[j];
        }
    }
}

TEST(CodedAdamWBounds, NumbersAtAndBesideAMiddleHaveTheNearestCodes) {
    expect_bounds<float>(DType::f32);
    expect_bounds<double>(DType::f64);
}

/// Columns of a whole state, cut into `parts` of equal widths, as over tp ranks.
class SharedBlocks : public ::testing::TestWithParam<std::pair<int, int>> {};  // parts, width of one

TEST_P(SharedBlocks, HaveTheBitsThatTheyHaveOnOneRank) {
    const auto [parts, width] = GetParam();
    for (DType dtype : compute_types) {
        if ((parts > 3 || watched()) && dtype != DType::f32) continue;
        const std::int64_t whole = std::int64_t{parts} * width;
        const Layout one{dtype, false, {2, 0, 1}, whole, 0, 0, whole, 3};
        State together(one);
        std::vector<Layout> layouts;
        std::vector<State> apart;
        const auto columns_of = [&](const HostTensor& from, int part) {
            HostTensor some(from.dtype(), {from.shape()[0], width});
            for (std::int64_t i = 0; i < some.size(); ++i)
                some.set(i, from.at(i / width * whole + part * width + i % width));
            return some;
        };
        for (int p = 0; p < parts; ++p) {
            layouts.push_back({dtype, false, {2, 0, 1}, width, std::int64_t{p} * width, 0, width, 3});
            apart.emplace_back(layouts.back());
            apart.back().master = columns_of(together.master, p);
        }
        // The maxima of two parameters: that of another one lies before them.
        const std::int64_t before = 4, length = before + 3 * 4;
        constexpr int num_steps = 2;
        for (int t = 0; t < num_steps; ++t) {
            const HostTensor gradient = gradient_of(one, t);
            together.gradient = gradient.clone();
            const kernels::AdamWRows rows = together.view(one);
            kernels::adamw({&rows, 1}, clip_of(0.5, 1));
            HostTensor maxima(accumulate_type(dtype), {parts, length});
            for (int p = 0; p < parts; ++p) {
                State& s = apart[static_cast<std::size_t>(p)];
                s.gradient = columns_of(gradient, p);
                const kernels::AdamWRows part = s.view(layouts[static_cast<std::size_t>(p)], true);
                kernels::adamw({&part, 1}, clip_of(0.5, 1));
                for (std::int64_t i = 0; i < s.maxima.size(); ++i)
                    maxima.set(p * length + before + i, s.maxima.at(i));
            }
            for (int p = 0; p < parts; ++p) {
                State& s = apart[static_cast<std::size_t>(p)];
                const kernels::SharedBlocks shared{s.view(layouts[static_cast<std::size_t>(p)], true),
                                                   before};
                if (p == 0) {
                    const HostTensor m = s.m.clone();
                    kernels::code_shared_blocks({&shared, 1}, maxima, clip_of(0.5, 0));
                    EXPECT_TRUE(same_bits(s.m, m)) << "a step that is not finite";
                }
                const kernels::SharedBlocks again{s.view(layouts[static_cast<std::size_t>(p)], true), before};
                kernels::code_shared_blocks({&again, 1}, maxima, clip_of(0.5, 1));
            }
        }
        for (int p = 0; p < parts; ++p) {
            const State& s = apart[static_cast<std::size_t>(p)];
            EXPECT_TRUE(same_bits(s.m, columns_of(together.m, p))) << "part " << p;
            EXPECT_TRUE(same_bits(s.v, columns_of(together.v, p))) << "part " << p;
            EXPECT_TRUE(same_bits(s.master, columns_of(together.master, p))) << "part " << p;
            const std::int64_t first = std::int64_t{p} * width / code_block,
                               blocks = layouts[static_cast<std::size_t>(p)].blocks();
            for (std::int64_t row = 0; row < 3; ++row)
                for (std::int64_t b = 0; b < blocks; ++b) {
                    const std::int64_t there = row * one.blocks() + first + b;
                    EXPECT_EQ(s.m_scale.at(row * blocks + b), together.m_scale.at(there));
                    EXPECT_EQ(s.v_scale.at(row * blocks + b), together.v_scale.at(there));
                }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cuts, SharedBlocks,
                         ::testing::Values(std::pair{2, 400}, std::pair{3, 112}, std::pair{7, 48},
                                           std::pair{2, 128}),
                         [](const auto& info) {
                             return std::to_string(info.param.first) + "x" +
                                    std::to_string(info.param.second);
                         });

/// More parameters than a back end takes in one launch: each row is one, every fifth with numbers.
TEST(CodedAdamWMany, ParametersWithCodesAndWithNumbersAreEachTheirOwn) {
    const std::int64_t count = watched() ? 40 : 300, width = 40;
    std::vector<std::int32_t> all;
    for (std::int32_t i = 0; i < count; ++i) all.push_back(i);
    const Layout layout{DType::f32, false, all, width, 0, 0, width, count};
    State together(layout), alone(layout);
    HostTensor m[2], v[2];
    std::vector<kernels::AdamWRows> parameters;
    const auto row = [&](int which, std::int64_t i) {
        const State& s = which == 0 ? together : alone;
        const auto of = [&](const HostTensor& t) { return static_cast<Tensor>(t).rows(i, 1); };
        kernels::AdamWRows rows{of(s.master),
                                of(s.m),
                                of(s.v),
                                of(s.step),
                                {},
                                s.gradient,
                                s.value,
                                kernels::Rows::range(i, 1),
                                0,
                                settings,
                                of(s.m_scale),
                                of(s.v_scale)};
        rows.settings.lr = 0.001 * static_cast<double>(i + 1);
        if (i % 5 != 4) return rows;
        rows.m = of(m[which]), rows.v = of(v[which]);
        rows.m_scale = rows.v_scale = {};
        return rows;
    };
    for (int which : {0, 1}) {
        (which == 0 ? together : alone).gradient = gradient_of(layout, 0);
        m[which] = HostTensor(DType::f32, {count, width}), v[which] = m[which].clone();
    }
    for (std::int64_t i = 0; i < count; ++i) {
        parameters.push_back(row(0, i));
        const kernels::AdamWRows one = row(1, i);
        if (i % 10 == 3 || i % 50 == 4) kernels::adamw({&one, 1}, clip_of(0.5, 1));
    }
    kernels::adamw(parameters, clip_of(0.5, 1));
    for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(together.step.at(i), i % 3 * 40 + 1) << i;
        if (i % 10 != 3 && i % 50 != 4) continue;
        for (std::int64_t j = i * width; j < (i + 1) * width; ++j) {
            ASSERT_EQ(together.master.at(j), alone.master.at(j)) << i;
            ASSERT_EQ(together.m.at(j), alone.m.at(j)) << i;
            ASSERT_EQ(together.v.at(j), alone.v.at(j)) << i;
            ASSERT_EQ(m[0].at(j), m[1].at(j)) << i;
        }
    }
}

TEST(CodedAdamWThreads, DoNotChangeABit) {
    if (watched()) GTEST_SKIP() << "no host threads are at work in kernels of a device";
    const Layout l{DType::f32, false, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 1337, 9, 0,
                   1337,       17};
    const auto run = [&](int threads) {
        const Threads scope(threads);
        State s(l);
        for (int t = 0; t < 2; ++t) {
            s.gradient = gradient_of(l, t);
            const kernels::AdamWRows rows = s.view(l);
            kernels::adamw({&rows, 1}, clip_of(1, 1));
        }
        return s;
    };
    const State one = run(1);
    for (int threads : {2, 3, 8}) {
        const State many = run(threads);
        for (HostTensor State::*part :
             {&State::master, &State::m, &State::v, &State::m_scale, &State::v_scale})
            EXPECT_TRUE(same_bits(many.*part, one.*part)) << threads;
    }
}

TEST(CodedAdamWErrors, ADirectionHasNoSharedBlocks) {
    const Layout l{DType::f32, true, {0}, 40, 40, 0, 40, 1};
    State s(l);
    kernels::AdamWRows rows = s.view(l, true);
    rows.master = {};
    EXPECT_THROW(kernels::adam_direction({&rows, 1}, clip_of(1, 1)), InternalError);
}

}  // namespace moment_codes_test
}  // namespace switchyard::test

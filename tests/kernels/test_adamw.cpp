// AdamW over several steps, with a step counter per row or one for all, against a scalar implementation in
// double.
#include "kernels/adamw.hpp"
#include "reference/adamw.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace adamw_test {

/// Owned rows in another order than in the gradient, in its columns column ... column + width - 1.
struct Layout {
    DType dtype;
    bool one_counter;
    std::vector<std::int32_t> gradient_rows;
    std::int64_t width, column, stride, num_rows;
};

constexpr kernels::AdamWSettings settings{
    .lr = 0.02, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1};

struct State {
    HostTensor master, m, v, step, frozen, gradient, value, rows;

    explicit State(const Layout& l) {
        const DType wide = accumulate_type(l.dtype);
        const auto owned = static_cast<std::int64_t>(l.gradient_rows.size());
        master = HostTensor::normal(wide, {owned, l.width}, "master");
        m = HostTensor(wide, {owned, l.width});
        v = m.clone();
        step = HostTensor(DType::i32, {l.one_counter ? 1 : owned});
        for (std::int64_t i = 0; i < step.size(); ++i) step.set(i, static_cast<double>(i % 3 * 40));
        frozen = HostTensor(DType::i32, {owned});
        for (std::int64_t i = 0; i < owned; ++i) frozen.set(i, i % 2 ? 5 : 0);
        gradient = HostTensor(wide, {l.num_rows, l.stride});
        value = HostTensor::normal(l.dtype, {l.num_rows, l.stride}, "value");
        rows = HostTensor::integers({owned}, l.gradient_rows);
    }
    kernels::AdamWRows view(std::int64_t column) const {
        return {master, m, v, step, frozen, gradient, value, kernels::Rows::listed(rows), column, settings};
    }
};

void update(const kernels::AdamWRows& rows, Tensor clip) {
    kernels::adamw({&rows, 1}, clip);
}

class AdamW : public ::testing::TestWithParam<Layout> {};

TEST_P(AdamW, EqualsTheAlgorithmNumberByNumber) {
    const Layout& l = GetParam();
    State s(l);
    const auto owned = static_cast<std::int64_t>(l.gradient_rows.size());
    std::vector<reference::AdamWNumber> expected(static_cast<std::size_t>(owned * l.width));
    for (std::int64_t i = 0; i < owned * l.width; ++i) expected[i].value = s.master.at(i);
    std::vector<int> steps;
    for (std::int64_t i = 0; i < s.step.size(); ++i) steps.push_back(static_cast<int>(s.step.at(i)));
    const Values untouched = s.value.values();
    const int num_steps = watched() ? 2 : 6;
    for (int t = 0; t < num_steps; ++t) {
        const HostTensor fresh =
            HostTensor::normal(s.gradient.dtype(), {l.num_rows, l.stride}, "g" + std::to_string(t));
        s.gradient = fresh.clone();
        const double clip = t % 2 ? 0.375 : 1;
        update(s.view(l.column), clip_of(clip, 1));
        for (int& step : steps) ++step;
        for (std::int64_t i = 0; i < owned; ++i)
            for (std::int64_t j = 0; j < l.width; ++j)
                reference::adamw(expected[i * l.width + j],
                                 i % 2 ? 0 : clip * fresh.at(l.gradient_rows[i] * l.stride + l.column + j),
                                 steps[l.one_counter ? 0 : i],
                                 {settings.lr, settings.beta1, settings.beta2, settings.eps,
                                  i % 2 ? 0 : settings.weight_decay});
    }
    Values master, m, v;
    for (const auto& p : expected) master.push_back(p.value), m.push_back(p.m), v.push_back(p.v);
    EXPECT_TRUE(close(s.master, master, 2, num_steps));
    EXPECT_TRUE(close(s.m, m, 2, num_steps));
    EXPECT_TRUE(close(s.v, v, 2, num_steps));
    for (std::int64_t i = 0; i < s.step.size(); ++i) EXPECT_EQ(s.step.at(i), steps[i]);

    // The compute copies are the rounded masters; everything outside the owned rectangle is unchanged.
    HostTensor copies(l.dtype, {l.num_rows, l.stride}, untouched);
    for (std::int64_t i = 0; i < owned; ++i)
        for (std::int64_t j = 0; j < l.width; ++j)
            copies.set(l.gradient_rows[i] * l.stride + l.column + j, s.master.at(i * l.width + j));
    EXPECT_TRUE(same_bits(s.value, copies));
}

TEST_P(AdamW, WithoutAMasterTheValueIsTheDirection) {
    const Layout& l = GetParam();
    State s(l);
    const auto owned = static_cast<std::int64_t>(l.gradient_rows.size());
    std::vector<reference::AdamWNumber> expected(static_cast<std::size_t>(owned * l.width));
    std::vector<int> steps;
    for (std::int64_t i = 0; i < s.step.size(); ++i) steps.push_back(static_cast<int>(s.step.at(i)));
    const Values untouched = s.value.values();
    kernels::AdamWRows rows = s.view(l.column);
    rows.master = {};
    const auto direct = [&](double finite) {
        rows.gradient = s.gradient;
        kernels::adam_direction({&rows, 1}, clip_of(0.375, finite));
    };
    constexpr int num_steps = 3;
    for (int t = 0; t < num_steps; ++t) {
        s.gradient =
            HostTensor::normal(s.gradient.dtype(), {l.num_rows, l.stride}, "g" + std::to_string(t));
        direct(1);
        for (int& step : steps) ++step;
        for (std::int64_t i = 0; i < owned; ++i)
            for (std::int64_t j = 0; j < l.width; ++j) {
                reference::AdamWNumber& x = expected[i * l.width + j];
                x.value = 0;  // a rate of -1 and no decay leave the direction there
                reference::adamw(
                    x, i % 2 ? 0 : 0.375 * s.gradient.at(l.gradient_rows[i] * l.stride + l.column + j),
                    steps[l.one_counter ? 0 : i], {-1, settings.beta1, settings.beta2, settings.eps, 0});
            }
    }
    Values m, v, value = untouched;
    for (const auto& p : expected) m.push_back(p.m), v.push_back(p.v);
    EXPECT_TRUE(close(s.m, m, 2, num_steps));
    EXPECT_TRUE(close(s.v, v, 2, num_steps));
    for (std::int64_t i = 0; i < s.step.size(); ++i) EXPECT_EQ(s.step.at(i), steps[i]);
    for (std::int64_t i = 0; i < owned; ++i)
        for (std::int64_t j = 0; j < l.width; ++j)
            value[static_cast<std::size_t>(l.gradient_rows[i] * l.stride + l.column + j)] =
                expected[i * l.width + j].value;
    EXPECT_TRUE(close(s.value, value, 2, num_steps));

    const Values kept = s.value.values(), moments = s.m.values();
    direct(0);  // not finite: nothing happens
    EXPECT_EQ(s.value.values(), kept);
    EXPECT_EQ(s.m.values(), moments);
    EXPECT_EQ(s.step.at(0), steps[0]);
}

std::vector<Layout> layouts() {
    std::vector<Layout> layouts;
    const std::int64_t wide = watched() ? 301 : 9001;
    for (DType dtype : compute_types)
        for (bool one_counter : {false, true}) {
            layouts.push_back({dtype, one_counter, {3, 0, 5}, 7, 2, 13, 6});
            layouts.push_back({dtype, one_counter, {1, 0}, wide, 0, wide, 2});
            layouts.push_back({dtype, one_counter, {0}, 1, 0, 1, 1});
        }
    return layouts;
}
INSTANTIATE_TEST_SUITE_P(Layouts, AdamW, ::testing::ValuesIn(layouts()));

class AdamWTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, AdamWTypes, ::testing::ValuesIn(compute_types));

TEST_P(AdamWTypes, NothingHappensWhenTheGradientIsNotFinite) {
    const Layout l{GetParam(), false, {1, 0}, 5, 0, 5, 2};
    State s(l);
    s.gradient = HostTensor(s.gradient.dtype(), {2, 5}, Values(10, NAN));
    const Values master = s.master.values(), value = s.value.values(), step = s.step.values();
    update(s.view(0), clip_of(NAN, 0));
    EXPECT_EQ(s.master.values(), master);
    EXPECT_EQ(s.value.values(), value);
    EXPECT_EQ(s.step.values(), step);
    EXPECT_EQ(s.m.values(), Values(10, 0.0));
    EXPECT_EQ(s.v.values(), Values(10, 0.0));
}

TEST_P(AdamWTypes, FrozenRowsWithoutMomentsStayConstant) {
    const Layout l{GetParam(), false, {0, 1}, 5, 0, 5, 2};
    State s(l);
    s.gradient = HostTensor::normal(s.gradient.dtype(), {2, 5}, "gradient");
    const Values before = s.master.values();
    for (int t = 0; t < 3; ++t) update(s.view(0), clip_of(1, 1));
    const Values after = s.master.values();
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_NE(after[j], before[j]);  // decays
        EXPECT_EQ(after[5 + j], before[5 + j]);
    }
    EXPECT_EQ(s.step.at(1), 43);
}

TEST_P(AdamWTypes, ManyParametersInOneCallAreEachItsOwn) {
    const std::int64_t wide = watched() ? 301 : 9001;
    const std::vector<Layout> layouts{{GetParam(), false, {3, 0, 5}, 7, 2, 13, 6},
                                      {GetParam(), true, {0, 1, 2}, wide, 0, wide, 3},
                                      {GetParam(), true, {1, 0}, 1, 0, 1, 2}};
    std::vector<State> alone, together;
    std::vector<kernels::AdamWRows> parameters;
    for (const Layout& l : layouts) {
        for (auto* states : {&alone, &together}) {
            State& s = states->emplace_back(l);
            s.gradient = HostTensor::normal(s.gradient.dtype(), {l.num_rows, l.stride}, "gradient");
        }
        parameters.push_back(together.back().view(l.column));
        parameters.back().settings.lr *= static_cast<double>(parameters.size());
        kernels::AdamWRows one = alone.back().view(l.column);
        one.settings = parameters.back().settings;
        update(one, clip_of(0.5, 1));
    }
    kernels::adamw(parameters, clip_of(0.5, 1));
    for (std::size_t k = 0; k < layouts.size(); ++k)
        for (HostTensor State::*part : {&State::master, &State::m, &State::v, &State::value, &State::step})
            EXPECT_TRUE(same_bits(together[k].*part, alone[k].*part)) << "parameter " << k;
}

/// More parameters than a back end takes in one launch.
TEST(AdamWMany, ParametersAreEachTheirOwn) {
    const std::int64_t count = watched() ? 40 : 400, width = 3;
    const Layout layout{DType::f32, true, {}, width, 0, width, count};
    State together(layout), alone(layout);
    std::vector<kernels::AdamWRows> parameters;
    for (State* s : {&together, &alone}) {
        s->master = HostTensor::normal(DType::f32, {count, width}, "master");
        s->m = HostTensor(DType::f32, {count, width}), s->v = s->m.clone();
        s->step = HostTensor(DType::i32, {count});
        s->gradient = HostTensor::normal(DType::f32, {count, width}, "gradient");
    }
    const auto row = [&](const State& s, std::int64_t i) {
        const auto of = [&](const HostTensor& t) { return static_cast<Tensor>(t).rows(i, 1); };
        return kernels::AdamWRows{of(s.master),
                                  of(s.m),
                                  of(s.v),
                                  of(s.step),
                                  {},
                                  s.gradient,
                                  s.value,
                                  kernels::Rows::range(i, 1),
                                  0,
                                  settings};
    };
    for (std::int64_t i = 0; i < count; ++i) {
        parameters.push_back(row(together, i));
        parameters.back().settings.lr = 0.001 * static_cast<double>(i);
        kernels::AdamWRows one = row(alone, i);
        one.settings.lr = parameters.back().settings.lr;
        if (i % 50 == 0 || i == count - 1) update(one, clip_of(1, 1));
    }
    kernels::adamw(parameters, clip_of(1, 1));
    for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(together.step.at(i), 1) << i;
        for (std::int64_t j = i * width; j < (i + 1) * width; ++j) {
            ASSERT_NE(together.m.at(j), 0) << i;
            if (i % 50 != 0 && i != count - 1) continue;
            ASSERT_EQ(together.master.at(j), alone.master.at(j)) << i;
            ASSERT_EQ(together.value.at(j), alone.value.at(j)) << i;
        }
    }
}

TEST(ClipCoefficient, LimitsTheNormAndSaysWhatIsNotFinite) {
    const auto clip = [](double square, double loss, double limit) {
        HostTensor result(DType::f64, {2});
        kernels::clip_coefficient(HostTensor(DType::f64, {1}, {square}), HostTensor(DType::f64, {1}, {loss}),
                                  limit, result);
        return result.values();
    };
    EXPECT_EQ(clip(16, 1, 1), (Values{0.25, 1}));
    EXPECT_EQ(clip(16, 1, 5), (Values{1, 1}));
    EXPECT_EQ(clip(16, 1, 0), (Values{1, 1}));  // no limit
    EXPECT_EQ(clip(INFINITY, 1, 1)[1], 0);
    EXPECT_EQ(clip(NAN, 1, 1)[1], 0);
    EXPECT_EQ(clip(1, NAN, 1)[1], 0);
    EXPECT_EQ(clip(1, -INFINITY, 1)[1], 0);
    HostTensor result(DType::f64, {2});
    kernels::clip_coefficient(HostTensor(DType::f64, {1}, {4}), {}, 1, result);
    EXPECT_EQ(result.values(), (Values{0.5, 1}));
}

TEST(AdamWAliases, MasterMayBeTheValueItself) {
    for (DType dtype : {DType::f32, DType::f64}) {
        const std::int64_t rows = 3, width = 37;
        State apart({dtype, true, {0, 1, 2}, width, 0, width, rows}),
            together({dtype, true, {0, 1, 2}, width, 0, width, rows});
        apart.gradient = HostTensor::normal(dtype, {rows, width}, "g");
        together.gradient = apart.gradient.clone();
        kernels::AdamWRows view = together.view(0);
        view.value = together.master;
        view.frozen = {};
        kernels::AdamWRows other = apart.view(0);
        other.frozen = {};
        for (int t = 0; t < 2; ++t) {
            update(view, clip_of(1, 1));
            update(other, clip_of(1, 1));
        }
        EXPECT_TRUE(same_bits(together.master, apart.value));
    }
}

TEST(AdamWAliases, ARankWithoutRowsStillCounts) {
    State s({DType::f32, true, {}, 5, 0, 5, 2});
    update(s.view(0), clip_of(1, 1));
    EXPECT_EQ(s.step.at(0), 1);
}

}  // namespace adamw_test
}  // namespace switchyard::test

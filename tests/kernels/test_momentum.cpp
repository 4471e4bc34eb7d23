// Moments, directions and their application against loops in double; what a step that is not finite leaves.
#include "kernels/momentum.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

class Momentum : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Momentum, ::testing::ValuesIn(compute_types),
                         [](const auto& info) { return std::string(name_of(info.param)); });

/// Rows in the middle of a tensor, at an address that is no multiple of 16 if `odd`.
Tensor rows_of(const HostTensor& t, bool odd) {
    return Tensor(t).rows(odd ? 1 : 0, t.shape()[0] - 1);
}

TEST_P(Momentum, EqualsTheLoop) {
    const DType narrow = GetParam(), wide = accumulate_type(narrow);
    const std::int64_t width = watched() ? 41 : 701;
    const Shape shape{6, width};
    for (bool nesterov : {false, true})
        for (bool odd : {false, true}) {
            const HostTensor m = HostTensor::normal(wide, shape, "m"),
                             gradient = HostTensor::normal(wide, shape, "gradient"),
                             direction = HostTensor::normal(narrow, shape, "direction"),
                             clip(DType::f64, {2}, {0.25, 1});
            const Values moments = m.values(), before = direction.values();
            kernels::momentum({.m = rows_of(m, odd),
                               .gradient = rows_of(gradient, odd),
                               .direction = rows_of(direction, odd),
                               .momentum = 0.75,
                               .nesterov = nesterov},
                              clip);
            const std::int64_t first = odd ? width : 0, end = first + 5 * width;
            for (std::int64_t i = 0; i < m.size(); ++i) {
                const auto at = static_cast<std::size_t>(i);
                if (i < first || i >= end) {
                    ASSERT_EQ(m.at(i), moments[at]) << i;
                    ASSERT_EQ(direction.at(i), before[at]) << i;
                    continue;
                }
                const double fresh = 0.25 * 0.25 * gradient.at(i), moment = 0.75 * moments[at] + fresh,
                             expected = nesterov ? 0.75 * moment + fresh : moment;
                const double size = std::fabs(moments[at]) + std::fabs(fresh);
                ASSERT_NEAR(m.at(i), moment, 2 * eps_of(wide) * size) << i;
                ASSERT_NEAR(direction.at(i), expected, 2 * eps_of(narrow) * size) << i;
            }
        }
}

TEST_P(Momentum, DirectionsAreAppliedInPlaceAndBesideTheMaster) {
    const DType narrow = GetParam(), wide = accumulate_type(narrow);
    const std::int64_t width = watched() ? 41 : 701;
    const Shape shape{6, width};
    for (bool odd : {false, true}) {
        const HostTensor master = HostTensor::normal(wide, shape, "master"),
                         direction = HostTensor::normal(narrow, shape, "direction"), value(narrow, shape),
                         clip(DType::f64, {2}, {0.25, 1});
        const Values before = master.values();
        const Tensor weights = rows_of(master, odd);
        kernels::apply_direction({.master = weights,
                                  .direction = rows_of(direction, odd),
                                  .value = narrow == wide ? weights : rows_of(value, odd),
                                  .decay = 0.875,
                                  .scale = -3},
                                 clip);
        const std::int64_t first = odd ? width : 0, end = first + 5 * width;
        for (std::int64_t i = 0; i < master.size(); ++i) {
            const bool inside = i >= first && i < end;
            const double old = before[static_cast<std::size_t>(i)], moved = 3 * direction.at(i),
                         expected = inside ? 0.875 * old - moved : old;
            ASSERT_NEAR(master.at(i), expected, 2 * eps_of(wide) * (std::fabs(old) + std::fabs(moved))) << i;
            if (narrow == wide) continue;
            ASSERT_EQ(value.at(i), inside ? to_f32(to_bf16(static_cast<float>(master.at(i)))) : 0) << i;
        }
    }
}

TEST_P(Momentum, AStepThatIsNotFiniteChangesNothing) {
    const DType narrow = GetParam(), wide = accumulate_type(narrow);
    const Shape shape{3, 40};
    const HostTensor m = HostTensor::normal(wide, shape, "m"),
                     direction = HostTensor::normal(narrow, shape, "d"),
                     gradient(wide, shape, Values(120, NAN)), value = HostTensor::normal(narrow, shape, "v"),
                     clip(DType::f64, {2}, {NAN, 0});
    const std::vector<Values> before{m.values(), direction.values(), value.values()};
    kernels::momentum({.m = m, .gradient = gradient, .direction = direction, .momentum = 0.5}, clip);
    kernels::apply_direction({.master = m, .direction = direction, .value = value, .decay = 0.5}, clip);
    EXPECT_EQ((std::vector<Values>{m.values(), direction.values(), value.values()}), before);
}

TEST(MomentumChecks, TypesAndShapes) {
    const HostTensor f32(DType::f32, {3, 4}), other(DType::f32, {4, 3}), bf16(DType::bf16, {3, 4}),
        clip(DType::f64, {2});
    EXPECT_THROW(kernels::momentum({.m = f32, .gradient = other, .direction = f32}, clip), InternalError);
    EXPECT_THROW(kernels::momentum({.m = bf16, .gradient = f32, .direction = f32}, clip), InternalError);
    EXPECT_THROW(kernels::apply_direction({.master = f32, .direction = f32, .value = bf16}, clip),
                 InternalError);
    EXPECT_THROW(kernels::apply_direction({.master = f32, .direction = f32, .value = f32}, f32),
                 InternalError);
}

}  // namespace
}  // namespace switchyard::test

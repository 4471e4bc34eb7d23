// Linears that read the same input share the products with their A factors: the values are those of pairs by
// themselves and of the equations, and a step makes as many products as it must.
#include <gtest/gtest.h>

#include "core/call_counts.hpp"
#include "kernels/elementwise.hpp"
#include "methods/parts/low_rank_adapter.hpp"
#include "reference/matmul.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using test::HostTensor;
using test::Values;
using testing::tiny_config;

constexpr std::int64_t in = 24, low_rank = 5, num_linears = 3;
constexpr std::array<std::int64_t, num_linears> widths{24, 10, 7};
constexpr double scale = 0.7;

HostTensor random(DType dtype, Shape shape, const std::string& name, std::int64_t i) {
    return HostTensor::normal(dtype, shape, name + std::to_string(i), 0.5);
}

/// Three linears of one input with a pair each, and what they compute in one pass forward and backward.
class Group {
  public:
    Group(DType dtype, std::int64_t tokens, bool shared, FactorLayout layout = FactorLayout::slots)
        : layout_(layout),
          config_(tiny_config({"--run.dtype=" + std::string(name_of(dtype)), "--data.global_batch=1",
                               "--data.seq_len=" + std::to_string(tokens)})),
          topology_(testing::serial()),
          group_(Split::column, whole(in),
                 {{"q", whole(widths[0])}, {"k", whole(widths[1])}, {"v", whole(widths[2])}}) {
        const auto build = [&](Arena& arena) {
            const ModelContext context{config_, topology_, arena, traffic_, dtype, 1, tokens};
            SharedPairs made;
            if (layout == FactorLayout::slots)
                made = make_shared_pairs(context, group_.linears(), low_rank, scale);
            else
                for (const Linear& linear : group_.linears())
                    made.pairs.push_back(
                        std::make_unique<LowRankAdapter>(context, linear, low_rank, scale, layout));
            pairs_.clear();
            for (const auto& pair : made.pairs) pairs_.push_back(pair.get());
            GroupAdapters adapters;
            for (auto& pair : made.pairs) adapters.of_linear.push_back(std::move(pair));
            if (shared) adapters.shared = std::move(made.products);
            group_.allocate(context, std::move(adapters));
        };
        arena_ = allocate_scratch(build);
        for (std::int64_t i = 0; i < num_linears; ++i) {
            const auto draw = [&](Parameter& factor, std::int64_t width, const char* name) {
                pairs_[i]->fill_slots(factor, [&](Tensor slots) {
                    kernels::copy(random(dtype, {low_rank, width}, name, i), slots);
                });
            };
            draw(pairs_[i]->a(), in, "A");
            draw(pairs_[i]->b(), widths[i], "B");
            weights_.push_back(random(dtype, {widths[i], in}, "W", i));
            x_ = random(dtype, {tokens, in}, "x", 0);
            y_.emplace_back(dtype, Shape{tokens, widths[i]});
            d_y_.push_back(random(dtype, {tokens, widths[i]}, "d_y", i));
            group_.linears()[i].set_weight(weights_[i]);
        }
        d_x_ = HostTensor(dtype, {tokens, in});
    }

    /// Output, gradient of x, gradients of A and B; two passes, which add up in the gradients of factors.
    std::map<std::string, Values> compute() {
        for (int pass = 0; pass < 2; ++pass) {
            group_.forward(x_, {y_[0], y_[1], y_[2]});
            group_.backward(x_, {d_y_[0], d_y_[1], d_y_[2]}, d_x_);
        }
        std::map<std::string, Values> all{{"d_x", d_x_.values()}};
        for (std::int64_t i = 0; i < num_linears; ++i) {
            all[fmt::format("y{}", i)] = y_[i].values();
            all[fmt::format("dA{}", i)] = slots_of(pairs_[i]->a().gradient);
            all[fmt::format("dB{}", i)] = slots_of(pairs_[i]->b().gradient);
        }
        return all;
    }

    /// The same from y = x W' + s (x A') B, where merged linears are given W + s B' A instead of W.
    std::map<std::string, Values> expected() const {
        const std::int64_t n = d_x_.shape()[0];
        const Values x = x_.values();
        Values d_x(n * in);
        std::map<std::string, Values> all;
        for (std::int64_t i = 0; i < num_linears; ++i) {
            const std::int64_t m = widths[i];
            const Values w = weights_[i].values(), a = slots_of(pairs_[i]->a().value),
                         b = slots_of(pairs_[i]->b().value), d_y = d_y_[i].values();
            const double s = pairs_[i]->merged() ? 0 : scale;
            const Values z = reference::product({n, low_rank, in}, 1, {x, in, 1}, {a, 1, in});
            const Values d_z = reference::product({n, low_rank, m}, scale, {d_y, m, 1}, {b, 1, m});
            const Values base = reference::product({n, m, in}, 1, {x, in, 1}, {w, 1, in});
            all[fmt::format("y{}", i)] =
                reference::product({n, m, low_rank}, s, {z, low_rank, 1}, {b, m, 1}, &base, m);
            d_x = reference::product({n, in, m}, 1, {d_y, m, 1}, {w, in, 1}, &d_x, in);
            d_x = reference::product({n, in, low_rank}, s / scale, {d_z, low_rank, 1}, {a, in, 1}, &d_x, in);
            all[fmt::format("dA{}", i)] =
                reference::product({low_rank, in, n}, 2, {d_z, 1, low_rank}, {x, in, 1});
            all[fmt::format("dB{}", i)] =
                reference::product({low_rank, m, n}, 2 * scale, {z, 1, low_rank}, {d_y, m, 1});
        }
        all["d_x"] = d_x;
        return all;
    }
    std::vector<LowRankAdapter*>& pairs() { return pairs_; }
    /// A factor or its gradient, slot by slot.
    Values slots_of(Tensor t) const {
        const bool turned = layout_ == FactorLayout::long_rows;
        const HostTensor wide(DType::f64, turned ? Shape{t.dim(1), t.dim(0)} : t.shape());
        turned ? kernels::transpose(t, wide) : kernels::copy(t, wide);
        return wide.values();
    }

  private:
    FactorLayout layout_;
    Config config_;
    Topology topology_;
    Traffic traffic_;
    LinearGroup group_;
    Arena arena_;
    std::vector<LowRankAdapter*> pairs_;
    HostTensor x_, d_x_;
    std::vector<HostTensor> weights_, y_, d_y_;
};

/// Relative to the largest value.
void expect_equal(const std::map<std::string, Values>& values, const std::map<std::string, Values>& expected,
                  double tolerance) {
    for (const auto& [name, right] : expected) {
        const Values& left = values.at(name);
        ASSERT_EQ(left.size(), right.size()) << name;
        double largest = 0;
        for (double value : right) largest = std::max(largest, std::fabs(value));
        ASSERT_GT(largest, 0) << name;
        for (std::size_t i = 0; i < left.size(); ++i)
            ASSERT_NEAR(left[i], right[i], tolerance * largest) << name << ", element " << i;
    }
}

constexpr std::int64_t unmerged_tokens = 8, merged_tokens = 19;

TEST(LowRankProducts, FollowTheEquations) {
    for (std::int64_t tokens : {unmerged_tokens, merged_tokens})
        for (const auto& [dtype, tolerance] :
             {std::pair{DType::f64, 1e-13}, std::pair{DType::f32, 1e-5}, std::pair{DType::bf16, 3e-2}}) {
            SCOPED_TRACE(fmt::format("{} tokens, {}", tokens, name_of(dtype)));
            Group together(dtype, tokens, true);
            for (const LowRankAdapter* pair : together.pairs())
                ASSERT_EQ(pair->merged(), tokens == merged_tokens);
            const auto values = together.compute();
            expect_equal(values, together.expected(), tolerance);
            expect_equal(Group(dtype, tokens, false).compute(), values, tolerance);
        }
}

/// Here the linears of a group choose by themselves: with few tokens the narrow ones are merged.
TEST(LowRankProducts, AreTheSameOfFactorsByLongRows) {
    for (std::int64_t tokens : {unmerged_tokens, merged_tokens})
        for (const auto& [dtype, tolerance] :
             {std::pair{DType::f64, 1e-13}, std::pair{DType::f32, 1e-5}, std::pair{DType::bf16, 3e-2}}) {
            SCOPED_TRACE(fmt::format("{} tokens, {}", tokens, name_of(dtype)));
            Group by_rows(dtype, tokens, false, FactorLayout::long_rows), by_slots(dtype, tokens, false);
            ASSERT_EQ(by_rows.pairs()[0]->merged(), tokens == merged_tokens);
            expect_equal(by_rows.compute(), by_rows.expected(), tolerance);
            for (std::size_t i = 0; i < num_linears; ++i) {
                LowRankAdapter &pair = *by_rows.pairs()[i], &other = *by_slots.pairs()[i];
                EXPECT_EQ(by_rows.slots_of(pair.a().value), by_slots.slots_of(other.a().value));
                EXPECT_EQ(pair.low_rank(), low_rank);
                const kernels::LowRankFactors factors = pair.effective_weight()->factors;
                EXPECT_TRUE(test::same_bits(factors.a, other.a().value));
                EXPECT_TRUE(test::same_bits(factors.b_transposed, other.b().value));
            }
        }
}

TEST(LowRankProducts, HaveTheAFactorsOfAGroupOneUnderTheOther) {
    Group group(DType::f32, merged_tokens, true);
    for (std::int64_t i = 1; i < num_linears; ++i)
        for (Tensor Parameter::*part : {&Parameter::value, &Parameter::gradient}) {
            const Tensor before = group.pairs()[i - 1]->a().*part, here = group.pairs()[i]->a().*part;
            EXPECT_EQ(before.data<std::byte>() + before.bytes(), here.data<std::byte>()) << i;
        }
}

/// Products in the forward and the backward phases of a step.
std::pair<std::int64_t, std::int64_t> products(std::vector<std::string> settings) {
    settings.push_back("--data.micro_batch=1");
    const Topology topology = testing::serial();
    const Config config = tiny_config(settings);
    count_calls(true);
    testing::TinyRun(config, topology).step();
    const StepCalls calls = calls_of_last_step();
    count_calls(false);
    const auto of = [&](Phase phase) {
        const auto found = calls[phase].kernels.find("matmul");
        return found == calls[phase].kernels.end() ? 0 : found->second;
    };
    return {of(Phase::forward), of(Phase::backward)};
}

TEST(LowRankProducts, AreAsFewAsTheInputsAllow) {
    const std::int64_t passes = 12 * 2, linears = 7, inputs = 4;  // micro-batches x blocks
    const auto full = products({"--method.name=full"});
    for (const char* method : {"lora", "switchlora"}) {
        const std::string name = std::string("--method.name=") + method;
        const auto merged = products({name});
        EXPECT_EQ(merged.first - full.first, 0) << method;
        // d_y B' and the gradient of B for each linear instead of the weight gradient; x A' and the gradient
        // of A for each input.
        EXPECT_EQ(merged.second - full.second, passes * (linears + 2 * inputs)) << method;
        const auto unmerged = products({name, "--data.seq_len=1"});
        EXPECT_EQ(unmerged.first - full.first, passes * (linears + inputs)) << method;
        EXPECT_EQ(unmerged.second - full.second, passes * (linears + 3 * inputs)) << method;
    }
}

TEST(LowRankProducts, AGroupMergesTogether) {
    const LinearGroup narrow(Split::column, whole(64), {{"q", whole(64)}, {"k", whole(8)}});
    const LinearGroup one(Split::column, whole(64), {{"q", whole(64)}});
    const auto span = [](const LinearGroup& group, std::size_t count) {
        return std::span<const Linear>(&group[0], count);
    };
    EXPECT_FALSE(merging_pays(span(one, 1), 32));  // 64 64 = 32 (64 + 64)
    EXPECT_TRUE(merging_pays(span(one, 1), 33));
    EXPECT_FALSE(merging_pays(span(narrow, 2), 23));  // 64 72 = 23.04 (72 + 128)
    EXPECT_TRUE(merging_pays(span(narrow, 2), 24));
}

}  // namespace
}  // namespace switchyard

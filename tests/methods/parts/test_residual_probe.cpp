// RANKS: 1 2 3
// The check that a switch kept the function accepts exact changes up to rounding and stops the run, on all
// ranks, for larger ones.
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "methods/parts/low_rank_adapter.hpp"
#include "methods/parts/residual_probe.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using test::message_of;
using testing::tiny_config;
using testing::TinyRun;

/// A run with a probe on one of its linears.
class Probed {
  public:
    Probed(const Config& config, const Topology& topology, std::size_t linear)
        : run_(config, topology),
          linear_(*run_.state().model.linears()[linear]),
          adapter_(dynamic_cast<LowRankAdapter&>(*linear_.adapter())) {
        Arena measured;
        allocate(measured);
        arena_ = Arena::allocate(measured);
        allocate(arena_);
        before();
    }
    void before() { probe_.before(linear_); }
    double after() {
        probe_.after(linear_);
        return probe_.judge(scalars_.read(), linear_, adapter_.low_rank() + 2);
    }
    std::string complaint() {
        return message_of<UserError>([&] { after(); });
    }

    /// Slot 0 of A gets another vector, and W absorbs the difference: W += s b (a - a'), computed from the
    /// values that products use or, with `from_masters`, from the f32 values that were rounded to them.
    void replace_a(bool from_masters) {
        const std::int64_t n = linear_.in().padded, m = linear_.out().padded;
        const DType wide = run_.state().context.accumulate(), compute = run_.state().context.dtype;
        const Tensor value = adapter_.a().value.rows(0, 1);
        const auto offset = test::HostTensor::normal(wide, {1, n}, "offset", from_masters ? 2e-4 : 0.0);
        const test::HostTensor incoming = test::HostTensor::normal(compute, {1, n}, "incoming", 0.5);
        test::HostTensor difference(wide, {1, n}), b(wide, {1, m});
        kernels::copy(value, difference);
        kernels::add(incoming, difference, -1.0);
        kernels::add(offset, difference);
        kernels::copy(adapter_.b().value.rows(0, 1), b);
        const FrozenBase& base = linear_.base();
        const std::size_t bytes = kernels::frozen_scratch_bytes(m, n, compute);
        const test::HostTensor scratch(DType::f32, {static_cast<std::int64_t>(bytes / 4 + 1)});
        kernels::add_low_rank(base.words, {difference, b, adapter_.scale()}, scratch);
        kernels::copy(incoming, value);
    }
    LowRankAdapter& adapter() { return adapter_; }
    Linear& linear() { return linear_; }

  private:
    void allocate(Arena& arena) {
        const ModelContext& c = run_.state().context;
        const ModelContext here{c.config, c.topology, arena, c.traffic, c.dtype, c.micro_batch, c.seq_len};
        scalars_ = kernels::StepScalars(arena);
        probe_.allocate(here, scalars_, linear_.in().padded, adapter_.low_rank());
    }
    TinyRun run_;
    Linear& linear_;
    LowRankAdapter& adapter_;
    Arena arena_;
    kernels::StepScalars scalars_;
    ResidualProbe probe_;
};

Config config(const char* dtype) {
    return tiny_config({std::string("--run.dtype=") + dtype, "--model.num_layers=1"});
}

TEST(ResidualProbeTest, AcceptsWhatTheAlgebraAllows) {
    for (const char* dtype : {"f64", "f32", "bf16"})
        testing::for_each_layout(config(dtype), [&](const Config& here, const Topology& topology) {
            Probed x(here, topology, 3);  // o_proj: A is cut over tp, B is replicated
            EXPECT_EQ(x.after(), 0) << "nothing changed";
            x.replace_a(false);
            const double residual = x.after();
            EXPECT_GT(residual, 0) << dtype;
            EXPECT_LT(residual, 8 * std::sqrt(8.0) *
                                    test::eps_of(std::string(dtype) == "f64" ? DType::f64 : DType::f32));
        });
}

TEST(ResidualProbeTest, StopsEveryRankAtAnAlteredFactor) {
    for (const char* dtype : {"f64", "f32", "bf16"})
        testing::for_each_layout(config(dtype), [&](const Config& here, const Topology& topology) {
            Probed x(here, topology, 0);
            x.replace_a(false);
            const Comm& world = topology.world;
            if (world.rank() == world.size() - 1) kernels::zero(x.adapter().b().value.rows(1, 1));
            EXPECT_CONTAINS(x.complaint(), "effective weight of model.layers.0.self_attn.q_proj changed by");
        });
}

TEST(ResidualProbeTest, SeesMastersInPlaceOfComputeCopies) {
    const Topology one = testing::serial();
    Probed x(config("bf16"), one, 0);
    x.replace_a(true);  // the rounding to bf16 leaves 2^-9 of a value
    EXPECT_CONTAINS(x.complaint(), "must preserve the function");
}

TEST(ResidualProbeTest, SeesAWeightThatDidNotGiveWay) {
    const Topology one = testing::serial();
    for (const char* dtype : {"f64", "f32", "bf16"}) {
        Probed x(config(dtype), one, 6);
        kernels::add(x.adapter().a().value.rows(1, 1), x.adapter().a().value.rows(0, 1), 1e-3);
        EXPECT_CONTAINS(x.complaint(), "mlp.down_proj") << dtype;
    }
}

TEST(ResidualProbeTest, ALargeScaleIsNoDefect) {
    const Topology one = testing::serial();
    for (const char* dtype : {"f64", "f32", "bf16"}) {
        const Config here =
            tiny_config({std::string("--run.dtype=") + dtype, "--method.alpha=64",
                         "--method.switch_interval=4", "--method.freeze_steps=2", "--optim.lr=1e-4"});
        TinyRun run(here, one);
        double largest = 0;
        for (int t = 0; t < 20; ++t) largest = std::max(largest, run.step().method.residual);
        EXPECT_GT(largest, 0) << "W and s B A nearly cancel: their rounding is large beside their sum";
    }
}

}  // namespace
}  // namespace switchyard

// RANKS: 1 2 4
// A shadow computes what the model computed when it was taken, bit for bit: beside every linear, in every
// pass, on every layout, whatever has trained since.
#include <gtest/gtest.h>

#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;

struct Seen {
    int of_shadow = 0, of_model = 0, pairs = 0;
    double difference = 0;               // the largest, of a pair
    std::vector<test::Values> shadow{};  // every output
};

/// A frozen weight without factors, whose outputs are compared with those of the shadow.
class Compared : public Adapter {
  public:
    explicit Compared(Seen& seen) : seen_(seen) {}
    void forward(const Linear& linear, Tensor x, Tensor y) override {
        kernels::matmul({.a = x, .b = linear.weight(), .c = y, .op_b = kernels::Op::transpose});
    }
    void backward(const Linear& linear, Tensor, Tensor d_y, Tensor d_x, Write write) override {
        EXPECT_TRUE(after_shadow_.empty());
        kernels::matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    }
    void on_shadow_output(const Linear&, Tensor y) override {
        ++seen_.of_shadow;
        after_shadow_ = test::values_of(y);
        seen_.shadow.push_back(after_shadow_);
    }
    void on_output(const Linear&, Tensor y) override {
        ++seen_.of_model;
        const test::Values values = test::values_of(y);
        if (after_shadow_.empty()) return;
        ++seen_.pairs;
        for (std::size_t i = 0; i < values.size(); ++i)
            seen_.difference = std::max(seen_.difference, std::fabs(values[i] - after_shadow_[i]));
        after_shadow_.clear();
    }
    Cost cost(const Linear&) const override { return {}; }
    std::vector<Parameter*> parameters() override { return {}; }

  private:
    Seen& seen_;
    test::Values after_shadow_;
};

struct Model {
    Model(const Config& config, const Topology& topology, Arena& arena, Seen& seen)
        : context{config,
                  topology,
                  arena,
                  traffic,
                  dtype_from_name(config.run.dtype),
                  config.data.micro_batch,
                  config.data.seq_len},
          model(context) {
        model.allocate(context, [&](LinearGroup& group) {
            return attach_each(group, [&](Linear&) { return std::make_unique<Compared>(seen); });
        });
        model.add_shadow(context);
    }
    Traffic traffic;
    ModelContext context;
    Transformer model;
};

/// work(model, seen) for every layout, when the shadow is taken and a batch uploaded.
template <class Work>
void with_models(const std::vector<std::string>& arguments, const Work& work) {
    testing::for_each_layout(tiny_config(arguments), [&](const Config& config, const Topology& topology) {
        Seen seen;
        Arena measured;
        { Model shapes(config, topology, measured, seen); }
        Arena arena = Arena::allocate(measured);
        Model x(config, topology, arena, seen);
        x.model.initialise(x.context);
        x.model.shadow()->take();
        testing::upload_batch(config, x.model);
        work(x, seen);
    });
}

constexpr int layers = 3;

TEST(Shadow, HasTheOutputsOfTheModelThatItWasTakenFrom) {
    for (const char* dtype : {"f64", "bf16"})
        for (const char* option : {"--model.recompute=false", "--model.recompute=true",
                                   "--parallel.shard_frozen=true", "--data.mask_documents=true"}) {
            SCOPED_TRACE(option);
            const std::vector<std::string> arguments{"--method.name=full", "--model.num_layers=3",
                                                     "--model.init_std=0.2",
                                                     std::string("--run.dtype=") + dtype, option};
            with_models(arguments, [&](Model& x, Seen& seen) {
                x.model.forward(1.0);
                EXPECT_EQ(seen.pairs, 7 * layers);
                x.model.backward();
                // The last block's outputs are still there, and nobody needs those of down_proj again.
                const int again = x.context.config.model.recompute ? 6 * (layers - 1) : 0;
                EXPECT_EQ(seen.pairs, 7 * layers + again);
                EXPECT_EQ(seen.of_shadow, seen.pairs);
                EXPECT_EQ(seen.difference, 0);
                x.model.evaluate();
                EXPECT_EQ(seen.of_shadow, seen.pairs);
                EXPECT_EQ(seen.of_model, seen.pairs + 7 * layers);
            });
        }
}

TEST(Shadow, StaysAsItWasTaken) {
    for (const char* recompute : {"false", "true"})
        with_models({"--method.name=full", "--model.num_layers=3", "--model.init_std=0.2",
                     std::string("--model.recompute=") + recompute},
                    [&](Model& x, Seen& seen) {
                        x.model.forward(1.0);
                        x.model.backward();
                        const std::vector<test::Values> before = std::move(seen.shadow);
                        ASSERT_FALSE(before.empty());
                        for (Parameter* p : x.model.parameters()) kernels::fill(p->value, 0.3);
                        seen.shadow.clear();
                        x.model.forward(1.0);
                        x.model.backward();
                        EXPECT_EQ(seen.shadow, before);
                        EXPECT_GT(seen.difference, 0.1);
                        x.model.shadow()->take();
                        seen.difference = 0;
                        x.model.forward(1.0);
                        EXPECT_EQ(seen.difference, 0);
                    });
}

}  // namespace
}  // namespace switchyard

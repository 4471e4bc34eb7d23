// RANKS: 1 2 4
// run.init_from into weights that a method stores transposed, square ones included, on every layout; and
// files that are not understood.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "kernels/matmul.hpp"
#include "support/layouts.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_run.hpp"
#include "support/whole_state.hpp"
#include "train/checkpoint_header.hpp"

namespace switchyard {
namespace init_from_test {

using kernels::matmul;
using kernels::Op;
using testing::TinyRun;

constexpr const char* transposed_name = "transposed_of_a_test";

/// Trains the weight as its transpose (in, out).
class TransposedWeight : public Adapter {
  public:
    TransposedWeight(const ModelContext& context, const Linear& linear) {
        const Extent &out = linear.out(), &in = linear.in();
        weight_.shard = {
            linear.name() + ".weight", {in.size, out.size}, in.begin, out.begin, in.count, out.count, 0};
        weight_.role = ParameterRole::weight;
        weight_.transposed = true;
        weight_.value = context.arena.take(MemoryClass::trainable, context.dtype, {in.padded, out.padded});
        weight_.gradient =
            context.arena.take(MemoryClass::gradients, context.accumulate(), {in.padded, out.padded});
    }
    void forward(const Linear&, Tensor x, Tensor y) override { matmul({.a = x, .b = weight_.value, .c = y}); }
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write write) override {
        matmul({.a = d_y,
                .b = weight_.value,
                .c = d_x,
                .op_b = Op::transpose,
                .accumulate = write == Write::accumulate});
        matmul({.a = x, .b = d_y, .c = weight_.gradient, .op_a = Op::transpose, .accumulate = true});
    }
    Cost cost(const Linear&) const override { return {}; }
    bool owns_weight() const override { return true; }
    std::vector<Parameter*> parameters() override { return {&weight_}; }

  private:
    Parameter weight_;
};

class TransposedMethod : public Method {
  public:
    std::unique_ptr<Adapter> attach(const ModelContext& context, Linear& linear) override {
        return std::make_unique<TransposedWeight>(context, linear);
    }
};

Config config_of(const std::string& method, const Config& layout) {
    static const bool once = [] {
        add_method(
            {.options = {.name = transposed_name}, .create = [](const Config&) -> std::unique_ptr<Method> {
                 return std::make_unique<TransposedMethod>();
             }});
        return true;
    }();
    (void)once;
    Config config = testing::tiny_config({"--method.name=" + method});
    config.parallel = layout.parallel;
    return config;
}

class InitFrom : public ::testing::Test {
  protected:
    InitFrom() : world_(Comm::duplicate(MPI_COMM_WORLD)) { shared_ = broadcast(world_, folder_.path()); }
    ~InitFrom() override { barrier(world_); }
    std::string file() const { return shared_ + "/state.h5"; }
    template <class More>
    void save(TinyRun& run, const More& more) {
        CheckpointWriter writer(world_, file());
        CheckpointHeader header;
        header.step = run.state().step;
        header.dtype = run.config().run.dtype;
        write_header(writer, header, 0, run.state().context.topology);
        StateIo io(writer);
        run.state().visit(io);
        more(writer);
        writer.commit();
    }

    test::TemporaryDirectory folder_;
    Comm world_;
    std::string shared_;
};

TEST_F(InitFrom, TransposedWeightsAreReadTheRightWayRound) {
    testing::for_each_layout(testing::tiny_config({}), [&](const Config& layout, const Topology& topology) {
        const Config dense_config = config_of(method_of_whole_weights(), layout);
        TinyRun source(dense_config, topology);
        source.losses(3);
        save(source, [](CheckpointWriter&) {});
        const testing::WholeState before = testing::whole_state(source.state());

        TinyRun dense(dense_config, topology), transposed(config_of(transposed_name, layout), topology);
        dense.state().initialise_from(CheckpointReader(world_, file()));
        transposed.state().initialise_from(CheckpointReader(world_, file()));
        const testing::WholeState after = testing::whole_state(transposed.state());
        for (const auto& [path, values] : before) {
            if (!path.starts_with("/model/")) continue;
            ASSERT_TRUE(after.contains(path)) << path;
            EXPECT_EQ(after.at(path), values) << path;
        }
        const std::vector<double> expected = dense.losses(3), losses = transposed.losses(3);
        for (std::size_t i = 0; i < losses.size(); ++i)
            EXPECT_NEAR(losses[i], expected[i], 1e-12 * expected[i])
                << "step " << i;  // products are formed in another order
        barrier(world_);
    });
}

/// Every dataset of the model is read once: what was told before the end adds up to all of it.
TEST_F(InitFrom, TellsHowManyBytesWereRead) {
    testing::for_each_layout(testing::tiny_config({}), [&](const Config& layout, const Topology& topology) {
        TinyRun source(config_of("lora", layout), topology);
        save(source, [](CheckpointWriter&) {});
        std::uint64_t bytes = 0;
        std::size_t datasets = 0;
        for (const DatasetInfo& d : file_contents(file()).datasets)
            if (d.path.starts_with("/model/")) {
                bytes += d.bytes;
                ++datasets;
            }
        for (const std::string method : {method_of_whole_weights(), "lora"}) {
            TinyRun run(config_of(method, layout), topology);
            std::vector<std::uint64_t> told;
            run.state().initialise_from(CheckpointReader(world_, file()), [&](auto done, auto all) {
                EXPECT_EQ(all, bytes);
                told.push_back(done);
            });
            ASSERT_EQ(told.size(), datasets + 1) << "each is one round here, and then the end is told";
            EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
            EXPECT_GT(told.front(), 0u);
            EXPECT_EQ(told[datasets - 1], bytes);
            EXPECT_EQ(told[datasets], bytes);
        }
        barrier(world_);
    });
}

TEST_F(InitFrom, WhatIsNotUnderstoodIsRefused) {
    const Topology topology = Topology::create(world_, 1);
    const Config config = config_of("lora", testing::tiny_config({}));
    TinyRun source(config, topology);
    const std::string linear = "model.layers.0.self_attn.q_proj";
    const Shard vector{"", {5}, 0, 0, 5, 1, world_.rank()};
    const test::HostTensor values = test::HostTensor::normal(DType::f64, {5}, "x");
    const auto complaint = [&](const auto& more) {
        save(source, more);
        return test::message_of<UserError>(
            [&] { source.state().initialise_from(CheckpointReader(world_, file())); });
    };
    EXPECT_EQ(complaint([](CheckpointWriter&) {}), "");
    EXPECT_CONTAINS(complaint([&](CheckpointWriter& writer) {
                        writer.write("/model/" + linear + ".lora_magnitude", vector, values);
                    }),
                    "holds /model/" + linear + ".lora_magnitude (");
    EXPECT_CONTAINS(complaint([&](CheckpointWriter& writer) {
                        writer.attribute("/model/" + linear + ".weight", "effective_weight",
                                         std::string("lora_A lora_B column_scale"));
                    }),
                    "by column_scale");
    EXPECT_CONTAINS(complaint([&](CheckpointWriter& writer) {
                        writer.attribute("/model/" + linear + ".weight", "effective_weight",
                                         std::string("none"));
                    }),
                    "no effective weight");
    // Where the effective weight is described, datasets that the description does not list belong to the
    // method.
    EXPECT_EQ(complaint([&](CheckpointWriter& writer) {
                  writer.attribute("/model/" + linear + ".weight", "effective_weight",
                                   std::string("lora_A lora_B"));
                  writer.write("/model/" + linear + ".lora_magnitude", vector, values);
              }),
              "");
}

}  // namespace init_from_test
}  // namespace switchyard

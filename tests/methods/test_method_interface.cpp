// RANKS: 1 2 3 4
// What methods need from model and optimizer, shown with adapters of this test: a weight whose gradient is
// projected to another width (GaLore), and every complete output of a linear (PC-LoRA).
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/random.hpp"
#include "kernels/reductions.hpp"
#include "kernels/transfer.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"
#include "support/upload_batch.hpp"

namespace switchyard {
namespace {

using kernels::matmul;
using kernels::Op;
using testing::tiny_config;

constexpr std::int64_t projected_width = 5;

/// Owns the weight (out, in); its gradient is dW Q' (out, 5) with a fixed Q (5, in). Column-parallel only, so
/// that every rank has all of Q's dimension.
class ProjectedWeight : public Adapter {
  public:
    ProjectedWeight(const ModelContext& context, const Linear& linear) {
        weight_.shard = linear.shard();
        weight_.role = ParameterRole::weight;
        weight_.value = context.arena.take(MemoryClass::trainable, context.dtype,
                                           {linear.out().padded, linear.in().padded});
        weight_.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(),
                                              {linear.out().padded, projected_width});
        q_ = context.arena.take(MemoryClass::workspace, context.dtype, {projected_width, linear.in().padded});
        z_ = context.arena.take(MemoryClass::workspace, context.dtype, {context.tokens(), projected_width});
    }
    void initialise(const ModelContext& context) {
        const Shard& s = weight_.shard;
        kernels::fill_normal(weight_.value, {s.global[1], s.row0, s.col0, s.rows, s.cols},
                             stream_key(context.config.run.seed, s.name), 0.02);
        kernels::fill_normal(q_, {s.global[1], 0, 0, projected_width, s.cols}, stream_key(3, s.name), 0.3);
    }
    void forward(const Linear&, Tensor x, Tensor y) override {
        matmul({.a = x, .b = weight_.value, .c = y, .op_b = Op::transpose});
    }
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write write) override {
        matmul({.a = d_y, .b = weight_.value, .c = d_x, .accumulate = write == Write::accumulate});
        matmul({.a = x, .b = q_, .c = z_, .op_b = Op::transpose});
        matmul({.a = d_y, .b = z_, .c = weight_.gradient, .op_a = Op::transpose, .accumulate = true});
    }
    Cost cost(const Linear&) const override { return {}; }
    bool owns_weight() const override { return true; }
    std::vector<Parameter*> parameters() override { return {&weight_}; }
    Parameter& weight() { return weight_; }
    Tensor q() const { return q_; }

  private:
    Parameter weight_;
    Tensor q_, z_;
};

struct Watched {
    double sum = 0;
    int calls = 0;
};

/// A frozen weight without factors; adds up the squares of the outputs that on_output() gets.
class WatchedOutput : public Adapter {
  public:
    WatchedOutput(const ModelContext& context, Watched& watched)
        : tp_size_(context.tp_size()), watched_(&watched) {}
    void forward(const Linear& linear, Tensor x, Tensor y) override {
        matmul({.a = x, .b = linear.weight(), .c = y, .op_b = Op::transpose});
    }
    void backward(const Linear& linear, Tensor, Tensor d_y, Tensor d_x, Write write) override {
        matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    }
    Cost cost(const Linear&) const override { return {}; }
    void on_output(const Linear& linear, Tensor y) override {
        const test::HostTensor square(DType::f64, {1});
        kernels::squared_norm(y, square);
        const double whole = square.at(0);  // the same on all tp ranks of a row-parallel linear
        ++watched_->calls;
        watched_->sum += linear.split() == Split::row ? whole / tp_size_ : whole;
    }
    std::vector<Parameter*> parameters() override { return {}; }

  private:
    int tp_size_;
    Watched* watched_;
};

/// Model and optimizer, built as TrainState builds them, with any adapter.
struct Parts {
    Parts(const Config& config, const Topology& topology, Arena& arena,
          const std::function<std::unique_ptr<Adapter>(const ModelContext&, Linear&)>& attach)
        : context{config, topology, arena, traffic, DType::f64, config.data.micro_batch, config.data.seq_len},
          model(context) {
        model.allocate(context, [&](LinearGroup& group) {
            return attach_each(group, [&](Linear& linear) { return attach(context, linear); });
        });
        optimizer.emplace(context, model.parameters(), [&](const Parameter& p) {
            OwnershipPlan plan{block_owners(owner_group(topology, p.tp_gradient), p.value.dim(0)), 0, false};
            for (int owner : plan.owners.owner) plan.capacity += owner == plan.owners.group->rank();
            return plan;
        });
    }
    Traffic traffic;
    ModelContext context;
    Transformer model;
    std::optional<Optimizer> optimizer;
};

std::vector<double> host(Tensor tensor) {
    std::vector<double> values(tensor.size());
    kernels::download(tensor, values.data());
    return values;
}

/// Runs one micro-batch of this dp rank; the samples are the same on every layout.
void forward_and_backward(Parts& parts, bool with_backward) {
    const Config& config = parts.context.config;
    const std::int64_t per_rank = config.data.global_batch / parts.context.topology.dp_size();
    for (std::int64_t i = 0; i < per_rank; i += config.data.micro_batch) {
        testing::upload_batch(config, parts.model, parts.context.topology.dp_rank() * per_rank + i);
        parts.model.forward(1.0);
        if (with_backward) parts.model.backward();
    }
}

class OnLayouts : public ::testing::Test {
  protected:
    /// Calls check(topology, config) for every factorisation of the ranks.
    template <class Check>
    void every_layout(Config config, const Check& check) {
        const Comm world = Comm::duplicate(MPI_COMM_WORLD);
        for (int tp = 1; tp <= world.size(); ++tp) {
            if (world.size() % tp != 0) continue;
            config.parallel.tp = tp;
            check(Topology::create(world, tp), config);
        }
    }
    template <class Attach, class Work>
    void with_parts(const Config& config, const Topology& topology, const Attach& attach, const Work& work) {
        Arena measured;
        { Parts shapes(config, topology, measured, attach); }
        Arena arena = Arena::allocate(measured);
        Parts parts(config, topology, arena, attach);
        parts.model.initialise(parts.context);
        work(parts);
    }
};

/// Sum over ranks of m(row) of all owned rows of `name`, by global row.
std::map<std::int64_t, std::vector<double>> first_moments(Parts& parts, const std::string& name) {
    std::map<std::int64_t, std::vector<double>> rows;
    for (OwnedParameter& owned : parts.optimizer->owned()) {
        const Parameter& p = owned.parameter();
        if (p.shard.name != name) continue;
        for (std::int32_t row = 0; row < p.shard.rows; ++row)
            if (owned.mine(row)) rows[p.shard.row0 + row] = host(owned.m(row));
    }
    return rows;
}

TEST_F(OnLayouts, AProjectedGradientIsReducedToTheOwnersOfItsRows) {
    const std::string name = "model.layers.1.self_attn.k_proj.weight";
    std::vector<ProjectedWeight*> adapters;
    const auto attach = [&](const ModelContext& context, Linear& linear) -> std::unique_ptr<Adapter> {
        if (linear.split() == Split::row) return nullptr;
        auto adapter = std::make_unique<ProjectedWeight>(context, linear);
        adapters.push_back(adapter.get());
        return adapter;
    };
    // The expected gradient: dW of a dense run on one process, times Q'.
    const Config config = tiny_config({"--method.name=full", "--data.micro_batch=1"});
    const Topology one = Topology::imaginary(1, 1, 0);
    std::vector<double> dense, q;
    std::int64_t out = 0, in = 0;
    with_parts(
        config, one, [](const ModelContext&, Linear&) { return nullptr; },
        [&](Parts& parts) {
            parts.optimizer->zero_gradients();
            forward_and_backward(parts, true);
            for (Parameter* p : parts.model.parameters())
                if (p->shard.name == name)
                    dense = host(p->gradient), out = p->value.dim(0), in = p->value.dim(1);
        });
    ASSERT_EQ(static_cast<std::int64_t>(dense.size()), out * in);

    every_layout(config, [&](const Topology& topology, const Config& here) {
        adapters.clear();
        with_parts(here, topology, attach, [&](Parts& parts) {
            const std::size_t half = adapters.size() / 2;  // the first half belongs to the measuring pass
            for (std::size_t i = half; i < adapters.size(); ++i) adapters[i]->initialise(parts.context);
            for (std::size_t i = half; i < adapters.size(); ++i)
                if (adapters[i]->weight().shard.name == name) q = host(adapters[i]->q());
            parts.optimizer->masters_from_values();
            parts.optimizer->zero_gradients();
            forward_and_backward(parts, true);
            parts.optimizer->reduce_gradients();
            for (OwnedParameter& owned : parts.optimizer->owned()) {
                const Parameter& p = owned.parameter();
                if (p.shard.name != name) continue;
                EXPECT_EQ(owned.gradient_width(), projected_width);
                const std::vector<double> gradient = host(p.gradient);
                for (std::int32_t row = 0; row < p.shard.rows; ++row) {
                    if (!owned.mine(row)) continue;
                    for (std::int64_t k = 0; k < projected_width; ++k) {
                        double expected = 0, size = 0;
                        for (std::int64_t j = 0; j < in; ++j) {
                            const double term = dense[(p.shard.row0 + row) * in + j] * q[k * in + j];
                            expected += term, size += std::abs(term);
                        }
                        // 1e-12, because sums over layers, tokens and ranks run in other orders.
                        EXPECT_NEAR(gradient[row * projected_width + k], expected, 1e-12 * size)
                            << "row " << row << " component " << k << ", tp " << topology.tp_size();
                    }
                }
            }
        });
    });
}

TEST_F(OnLayouts, TheMethodUpdatesAProjectedWeightAndTheOthersFollow) {
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    const auto attach = [&](const ModelContext& context, Linear& linear) -> std::unique_ptr<Adapter> {
        if (linear.name() + ".weight" != name) return nullptr;
        return std::make_unique<ProjectedWeight>(context, linear);
    };
    every_layout(tiny_config({"--method.name=full", "--data.micro_batch=1"}), [&](const Topology& topology,
                                                                                  const Config& here) {
        with_parts(here, topology, attach, [&](Parts& parts) {
            Parameter* projected = nullptr;
            for (Parameter* p : parts.model.parameters())
                if (p->shard.name == name) projected = p;
            ASSERT_NE(projected, nullptr);
            parts.optimizer->masters_from_values();
            parts.optimizer->zero_gradients();
            kernels::fill(parts.optimizer->squared_norm(), 4.0);
            parts.optimizer->decide_clip();
            // The factor that the method must apply to its own update.
            EXPECT_EQ(host(parts.optimizer->clip()), (std::vector<double>{here.optim.clip_norm / 2, 1}));
            int asked = 0;
            parts.optimizer->update(0.5, [&](OwnedParameter& owned, kernels::AdamWSettings& settings) {
                EXPECT_DOUBLE_EQ(settings.lr, 0.5 * here.optim.lr);
                if (&owned.parameter() != projected) return true;
                ++asked;
                for (std::int32_t row = 0; row < projected->shard.rows; ++row) {
                    if (!owned.mine(row)) continue;
                    const double value = static_cast<double>(projected->shard.row0 + row);
                    kernels::fill(owned.master(row), value);
                    kernels::fill(owned.m(row), value);
                }
                return false;
            });
            EXPECT_EQ(asked, 1);
            parts.optimizer->values_from_masters();
            const std::vector<double> values = host(projected->value);
            const std::int64_t in = projected->value.dim(1);
            for (std::int64_t row = 0; row < projected->shard.rows; ++row)
                EXPECT_EQ(values[row * in + in - 1], static_cast<double>(projected->shard.row0 + row))
                    << "tp " << topology.tp_size();
            for (const auto& [row, m] : first_moments(parts, name)) {
                EXPECT_EQ(m.size(), static_cast<std::size_t>(projected_width));
                EXPECT_EQ(m.front(), static_cast<double>(row));
            }
        });
    });
}

TEST_F(OnLayouts, OnOutputSeesEveryCompleteOutputOnce) {
    Watched watched;
    const auto attach = [&](const ModelContext& context, Linear&) {
        return std::make_unique<WatchedOutput>(context, watched);
    };
    const Config config = tiny_config({"--method.name=full", "--data.micro_batch=1"});
    const auto watch = [&](const Topology& topology, const Config& here) {
        with_parts(here, topology, attach, [&](Parts& parts) {
            watched = {};
            forward_and_backward(parts, false);
        });
        EXPECT_EQ(watched.calls, 7 * here.model.num_layers * here.data.global_batch / topology.dp_size());
        return all_reduce_sum(topology.world, watched.sum);
    };
    const double expected = watch(Topology::imaginary(1, 1, 0), config);
    every_layout(config, [&](const Topology& topology, const Config& here) {
        EXPECT_NEAR(watch(topology, here), expected, 1e-11 * expected) << "tp " << topology.tp_size();
    });
}

}  // namespace
}  // namespace switchyard

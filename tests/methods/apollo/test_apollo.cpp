// RANKS: 1 2 3 4
// The whole method on every layout against a reference on one process (reference/apollo.hpp), over many steps
// in f64: weights, moments, norms of updates. The reference takes its gradients from the same model with
// dense weights.
#include <gtest/gtest.h>

#include "reference/apollo.hpp"
#include "reference/projected_side.hpp"
#include "support/dense_model.hpp"
#include "support/reference_run.hpp"

namespace switchyard {
namespace apollo_test {

using reference::Array;
using reference::ScaledMatrix;
using reference::Trained;
using testing::tiny_config;
using testing::TinyRun;

/// Uses the program's random streams, which are keyed by name and global index.
struct Reference {
    Config config;
    testing::DenseModel model;
    std::map<std::string, ScaledMatrix> matrices;
    std::map<std::string, Trained> dense;
    double grad_norm = 0;
    int steps = 0, limited = 0;

    explicit Reference(const Config& c) : config(c), model(c) {
        for (Parameter* p : model.parameters()) {
            const std::string& name = p->shard.name;
            const int rows = static_cast<int>(p->shard.rows), cols = static_cast<int>(p->shard.cols);
            const auto drawn = [&](int i) { return c.model.init_std * normal(key(name), i); };
            if (!name.ends_with("_proj.weight")) {
                Trained& x = dense[name] = {rows, cols};
                for (int i = 0; i < rows * cols; ++i) x.numbers[i].value = cols == 1 ? 1 : drawn(i);
                continue;
            }
            ScaledMatrix x(rows, cols, static_cast<int>(option_integer(c.method, "rank")),
                           reference::projects_inputs(option_text(c.method, "projection"), name, rows, cols));
            x.by_channel = option_text(c.method, "scale_by") == "channel";
            x.alpha = option_real(c.method, "alpha");
            x.growth = option_real(c.method, "growth_limit");
            for (int i = 0; i < rows * cols; ++i) x.w[i] = drawn(i);
            matrices.emplace(name, std::move(x));
        }
    }
    std::uint64_t key(const std::string& stream) const { return stream_key(config.run.seed, stream); }

    void step() {
        for (auto& [name, x] : matrices) model.set(name, x.w);
        for (auto& [name, x] : dense) {
            Array values;
            for (const auto& number : x.numbers) values.push_back(number.value);
            model.set(name, values);
        }
        const auto& gradients = model.gradients();
        double sum = 0;
        for (const auto& [name, g] : gradients)
            for (double x : g) sum += x * x;
        grad_norm = std::sqrt(sum);
        const OptimConfig& o = config.optim;
        const double clip = std::min(1.0, o.clip_norm / grad_norm);
        const auto interval = option_integer(config.method, "update_interval");
        for (auto& [name, x] : matrices) {
            Array g = gradients.at(name), p(x.projected() * x.r);
            for (double& value : g) value *= clip;
            const std::uint64_t stream = key(name + " projection " + std::to_string(steps / interval));
            for (std::size_t i = 0; i < p.size(); ++i) p[i] = normal(stream, i) / std::sqrt(x.r);
            x.update(g, p, {o.lr, o.beta1, o.beta2, o.eps, o.weight_decay});
            limited += x.limited;
        }
        for (auto& [name, x] : dense)
            x.update(gradients.at(name), clip,
                     {o.dense_lr > 0 ? o.dense_lr : o.lr, o.beta1, o.beta2, o.eps,
                      x.cols == 1 ? 0 : o.weight_decay},
                     {});
        ++steps;
    }

    /// All state under the names and in the shapes of a checkpoint.
    testing::WholeState whole() const {
        using reference::AdamWNumber;
        testing::WholeState all;
        for (const auto& [name, x] : dense) testing::ReferenceRun<ScaledMatrix>::put(all, name, x, false);
        for (const auto& [name, x] : matrices) {
            all["/model/" + name] = x.w;
            for (const auto& [part, member] : {std::pair{"/m", &AdamWNumber::m}, {"/v", &AdamWNumber::v}}) {
                Array& values = all["/optimizer/" + name + part];
                values.resize(x.numbers.size());
                for (int i = 0; i < x.kept(); ++i)
                    for (int j = 0; j < x.r; ++j)
                        values[x.inputs ? i * x.r + j : j * x.kept() + i] = x.numbers[i * x.r + j].*member;
            }
        }
        for (const Parameter* p : const_cast<testing::DenseModel&>(model).parameters())
            if (const auto x = matrices.find(p->shard.name); x != matrices.end())
                all["/method/update_norms"].push_back(x->second.norm);
        return all;
    }
};

/// optim.eps: an element whose gradient is rounding noise would otherwise have a direction of its own.
Config config_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"--method.name=apollo", "--model.num_layers=1", "--data.seq_len=4", "--run.steps=200",
                      "--method.update_interval=7", "--optim.eps=1e-4", "--optim.schedule=constant",
                      "--optim.warmup_steps=0"});
    return tiny_config(arguments);
}

void expect_reference(const std::vector<std::string>& arguments, int most_steps) {
    const Config config = config_of(arguments);
    const int steps = testing::reference_steps(most_steps);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool root = rank == 0;
    testing::WholeState expected, expected_early;
    std::vector<double> norms;
    const int early = 3;
    if (root) {
        Config whole_batch = config;
        whole_batch.data.micro_batch = 12;
        Reference reference(whole_batch);
        for (int t = 0; t < steps; ++t) {
            if (t == early) expected_early = reference.whole();
            reference.step();
            norms.push_back(reference.grad_norm);
        }
        expected = reference.whole();
        EXPECT_GT(reference.limited, 0) << "no update is limited";
        EXPECT_LT(reference.limited, 7 * steps);
        EXPECT_GT(*std::max_element(norms.begin(), norms.end()), config.optim.clip_norm)
            << "nothing is clipped";
    }
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (int t = 0; t < steps; ++t) {
            if (t == early) {
                const testing::WholeState state = testing::whole_state(run.state());
                if (root) testing::expect_close(state, expected_early, 1e-10);
            }
            const double norm = run.step().grad_norm;
            if (root) {
                EXPECT_NEAR(norm, norms[t], 1e-10 * norms[t]) << "step " << t;
            }
        }
        const testing::WholeState state = testing::whole_state(run.state());
        if (root)
            fmt::print("tp {} dp {}: largest difference {:.1e}\n", here.parallel.tp, topology.dp_size(),
                       testing::expect_close(state, expected, 1e-10));
    });
}

TEST(ApolloTest, ByChannelEqualsOneProcess) {
    expect_reference({"--method.rank=6", "--optim.dense_lr=0.004"}, 100);
}

TEST(ApolloTest, MiniEqualsOneProcess) {
    expect_reference({"--method.scale_by=tensor", "--optim.lr=0.001", "--optim.dense_lr=0.01"}, 100);
}

/// Here some projected dimensions are cut over tp, so that R is a sum and all tp ranks hold its moments. Rank
/// 12 is as many as the columns of some stored weights on two tp ranks.
TEST(ApolloTest, PublishedProjectionsEqualOneProcess) {
    expect_reference({"--method.rank=12", "--method.projection=paper", "--method.update_interval=2"}, 20);
    expect_reference({"--method.rank=5", "--method.projection=std"}, 20);
    expect_reference({"--method.scale_by=tensor", "--method.projection=paper", "--optim.lr=0.001",
                      "--model.recompute=true", "--optim.dense_lr=0.01"},
                     20);
}

}  // namespace apollo_test
}  // namespace switchyard

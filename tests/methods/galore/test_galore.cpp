// RANKS: 1 2 3 4
// The whole method on every layout against a reference on one process (reference/galore.hpp), over many steps
// in f64: weights, moments, bases and their refreshes. The reference takes its gradients from the same model
// with dense weights.
#include <gtest/gtest.h>

#include <numbers>

#include "reference/galore.hpp"
#include "reference/projected_side.hpp"
#include "support/dense_model.hpp"
#include "support/reference_steps.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace galore_test {

using reference::Array;
using testing::tiny_config;
using testing::TinyRun;

/// Warm-up, then cosine to min_lr_ratio.
double learning_rate_factor(const Config& config, std::int64_t step) {
    const auto warmup = static_cast<double>(config.optim.warmup_steps);
    if (static_cast<double>(step) < warmup) return static_cast<double>(step + 1) / warmup;
    const double progress =
        (static_cast<double>(step) - warmup) / (static_cast<double>(config.run.steps) - warmup);
    const double low = config.optim.min_lr_ratio;
    return low + (1 - low) * (1 + std::cos(std::numbers::pi * progress)) / 2;
}

/// Uses the program's random streams, which are keyed by name and global index.
struct Reference {
    Config config;
    testing::DenseModel model;
    reference::GaloreRun run;
    int steps = 0;

    explicit Reference(const Config& c) : config(c), model(c) {
        run.rates = {c.optim.lr, c.optim.beta1, c.optim.beta2, c.optim.eps, c.optim.weight_decay};
        run.dense_lr = c.optim.dense_lr > 0 ? c.optim.dense_lr : c.optim.lr;
        run.clip_norm = c.optim.clip_norm;
        run.alpha = option_real(c.method, "alpha");
        run.interval = static_cast<int>(option_integer(c.method, "update_interval"));
        run.follows = option_text(c.method, "basis") == "subspace";
        run.singular = option_text(c.method, "basis") == "svd";
        run.together = option_boolean(c.method, "refresh_together");
        run.draw = [this](const std::string& name, const reference::ProjectedMatrix& x, int k) {
            Array columns(x.projected() * x.r);
            const std::uint64_t stream = key(name + " basis " + std::to_string(k));
            for (std::size_t i = 0; i < columns.size(); ++i) columns[i] = normal(stream, i);
            return columns;
        };
        for (Parameter* p : model.parameters()) {
            const std::string& name = p->shard.name;
            const int rows = static_cast<int>(p->shard.rows), cols = static_cast<int>(p->shard.cols);
            const auto value = [&](int i) { return c.model.init_std * normal(key(name), i); };
            if (!name.ends_with("_proj.weight")) {
                reference::DenseNumbers& x = run.dense[name] = {rows, cols, {}, 0};
                x.numbers.resize(rows * cols);
                for (int i = 0; i < rows * cols; ++i) x.numbers[i].value = cols == 1 ? 1 : value(i);
                continue;
            }
            reference::ProjectedMatrix x(
                rows, cols, static_cast<int>(option_integer(c.method, "rank")),
                reference::projects_inputs(option_text(c.method, "projection"), name, rows, cols));
            for (int i = 0; i < rows * cols; ++i) x.w[i] = value(i);
            run.order.push_back(name);
            run.matrices.emplace(name, std::move(x));
        }
        run.start();
    }
    std::uint64_t key(const std::string& stream) const { return stream_key(config.run.seed, stream); }

    void step() {
        for (auto& [name, x] : run.matrices) model.set(name, x.w);
        for (auto& [name, x] : run.dense) {
            Array values;
            for (const auto& number : x.numbers) values.push_back(number.value);
            model.set(name, values);
        }
        run.step(steps, model.gradients(), learning_rate_factor(config, steps));
        ++steps;
    }

    /// All state under the names and in the shapes of a checkpoint.
    testing::WholeState whole() const {
        testing::WholeState all;
        for (const auto& [name, x] : run.dense) {
            put(all["/model/" + name], x.numbers, x.rows, x.cols, false, &reference::AdamWNumber::value);
            put_moments(all, name, x.numbers, x.rows, x.cols, false, x.steps);
        }
        bool changed = steps == 0, range = false;
        for (const auto& [name, x] : run.matrices) {
            const std::string linear = name.substr(0, name.size() - 7);
            all["/model/" + name] = x.w;
            put_moments(all, name, x.numbers, x.kept(), x.r, !x.inputs, x.steps);
            all["/method/" + linear + "/projector"] = x.q;
            if (!x.range.empty()) all["/method/" + linear + "/range"] = x.range;
            range = range || !x.range.empty();
        }
        changed = changed || (run.follows    ? steps >= 2 && (steps - 2) % run.interval == 0
                              : run.singular ? false  // measured in their own step
                                             : steps % run.interval == 0);
        const auto count = static_cast<double>(run.matrices.size());
        Array& table = all["/method/refresh"] = {changed ? count : 0.0, range ? 1.0 : 0.0};
        table.resize(table.size() + run.matrices.size(), range ? 1.0 : 0.0);
        return all;
    }
    static void put(Array& values, const std::vector<reference::AdamWNumber>& numbers, int rows, int cols,
                    bool transposed, double reference::AdamWNumber::*member) {
        values.resize(numbers.size());
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < cols; ++j)
                values[transposed ? j * rows + i : i * cols + j] = numbers[i * cols + j].*member;
    }
    static void put_moments(testing::WholeState& all, const std::string& name,
                            const std::vector<reference::AdamWNumber>& numbers, int rows, int cols,
                            bool transposed, int steps) {
        const std::string base = "/optimizer/" + name;
        put(all[base + "/m"], numbers, rows, cols, transposed, &reference::AdamWNumber::m);
        put(all[base + "/v"], numbers, rows, cols, transposed, &reference::AdamWNumber::v);
        all[base + "/step"] = {static_cast<double>(steps)};
    }
};

/// |actual - expected| <= tolerance * max |expected| for each dataset; returns the largest ratio.
double expect_same(const testing::WholeState& actual, const testing::WholeState& expected, double tolerance) {
    double worst = 0;
    std::vector<std::string> names, expected_names;
    for (const auto& [name, values] : actual) names.push_back(name);
    for (const auto& [name, values] : expected) expected_names.push_back(name);
    EXPECT_EQ(names, expected_names);
    for (const auto& [name, values] : expected) {
        const auto found = actual.find(name);
        if (found == actual.end() || found->second.size() != values.size()) {
            ADD_FAILURE() << name << " is missing or has another size";
            continue;
        }
        double largest = 0, error = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            largest = std::max(largest, std::fabs(values[i]));
            error = std::max(error, std::fabs(found->second[i] - values[i]));
        }
        const bool exact = name.ends_with("/step") || name.ends_with("/refresh");
        EXPECT_LE(error, exact ? 0 : tolerance * largest) << name;
        if (!exact && largest > 0) worst = std::max(worst, error / largest);
    }
    return worst;
}

/// optim.eps: an element whose gradient is rounding noise would otherwise move by the full rate in its
/// direction.
Config config_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"--method.name=galore", "--model.num_layers=1", "--data.seq_len=4", "--run.steps=200",
                      "--method.rank=6", "--method.update_interval=7", "--optim.eps=1e-4"});
    return tiny_config(arguments);
}

void expect_reference(const std::vector<std::string>& arguments, int most_steps) {
    const Config config = config_of(arguments);
    const int steps = testing::reference_steps(most_steps);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool root = rank == 0;
    const std::vector<int> looked_at{0, 1, 2, 3, steps / 2, steps - 1, steps};
    std::map<int, testing::WholeState> expected;  // by the number of steps made
    std::vector<double> norms;
    if (root) {
        Reference reference(config);
        for (int t = 0; t <= steps; ++t) {
            if (std::count(looked_at.begin(), looked_at.end(), t) > 0) expected[t] = reference.whole();
            if (t == steps) break;
            reference.step();
            norms.push_back(reference.run.grad_norm);
        }
        EXPECT_GT(*std::max_element(norms.begin(), norms.end()), config.optim.clip_norm)
            << "nothing is clipped";
    }
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        double worst = 0;
        for (int t = 0; t <= steps; ++t) {
            if (std::count(looked_at.begin(), looked_at.end(), t) > 0) {
                SCOPED_TRACE(::testing::Message() << "after " << t << " steps");
                const testing::WholeState state = testing::whole_state(run.state());
                if (root) worst = std::max(worst, expect_same(state, expected[t], 1e-10));
            }
            if (t == steps) break;
            const StepResult result = run.step();
            EXPECT_LT(result.method.residual, 1e-13);
            if (!root) continue;
            EXPECT_NEAR(result.grad_norm, norms[t], 1e-10 * norms[t]) << "step " << t;
        }
        if (root)
            fmt::print("tp {} dp {}: largest difference {:.1e}\n", here.parallel.tp, topology.dp_size(),
                       worst);
    });
}

TEST(GaloreTest, SubspaceEqualsOneProcess) {
    expect_reference({}, 100);
}

TEST(GaloreTest, RandomBasesAndShardedWeightsEqualOneProcess) {
    expect_reference({"--method.basis=random", "--parallel.shard_frozen=true", "--optim.dense_lr=0.004"},
                     100);
}

/// The singular vectors of the paper, matrix after matrix (seven in the seven steps of an interval, then two
/// at a time), and all at once.
TEST(GaloreTest, SingularVectorsEqualOneProcess) {
    expect_reference({"--method.basis=svd"}, 100);
    expect_reference({"--method.basis=svd", "--method.update_interval=4", "--parallel.shard_frozen=true"},
                     10);
    expect_reference({"--method.basis=svd", "--method.refresh_together=true", "--optim.dense_lr=0.004"}, 20);
}

/// Here some gradients are partial over tp and their bases are cut. Square matrices, and k and v with fewer
/// rows than columns.
TEST(GaloreTest, PublishedProjectionsEqualOneProcess) {
    expect_reference({"--method.projection=std", "--method.update_interval=2"}, 20);
    expect_reference({"--method.projection=paper", "--parallel.shard_frozen=true"}, 20);
    for (const char* projection : {"std", "paper"})
        expect_reference({std::string("--method.projection=") + projection, "--method.basis=svd",
                          "--method.refresh_together=true", "--method.update_interval=5"},
                         10);
}

}  // namespace galore_test
}  // namespace switchyard

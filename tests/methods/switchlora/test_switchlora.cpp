// RANKS: 1 2 3 4
// The whole method on every layout against a reference on one process (reference/switchlora.hpp), over many
// steps in f64: frozen weights, factors, banks, moments, step counters and tables. The reference takes its
// gradients from the same model with dense weights W + s B A.
#include <gtest/gtest.h>

#include <numbers>

#include "methods/switchlora/switch_schedule.hpp"
#include "reference/switchlora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_steps.hpp"
#include "support/whole_state.hpp"

namespace switchyard {
namespace {

using reference::Array;
using reference::SwitchLoraRun;
using reference::SwitchRing;
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

std::int64_t integer(const Config& config, const char* key) {
    return option_integer(config.method, key);
}

/// Uses the program's random streams, which are keyed by name and global index.
struct Reference {
    Config config;
    testing::DenseModel model;
    SwitchLoraRun run;
    std::map<std::string, SwitchSchedule> random;  // which slots and candidates are drawn

    explicit Reference(const Config& c) : config(c), model(c) {
        run.rates = {c.optim.lr, c.optim.beta1, c.optim.beta2, c.optim.eps, c.optim.weight_decay};
        run.dense_lr = c.optim.dense_lr > 0 ? c.optim.dense_lr : c.optim.lr;
        run.clip_norm = c.optim.clip_norm;
        for (Parameter* p : model.parameters()) {
            const std::string& name = p->shard.name;
            const int rows = static_cast<int>(p->shard.rows), cols = static_cast<int>(p->shard.cols);
            if (!name.ends_with("_proj.weight")) {
                reference::Trained& x = run.dense[name] = {rows, cols};
                for (int i = 0; i < rows * cols; ++i)
                    x.numbers[i].value = cols == 1 ? 1 : c.model.init_std * normal(key(name), i);
                continue;
            }
            add_matrix(name.substr(0, name.size() - 7), rows, cols);
        }
    }
    std::uint64_t key(const std::string& stream) const { return stream_key(config.run.seed, stream); }

    void add_matrix(const std::string& name, int m, int n) {
        const int r = static_cast<int>(integer(config, "rank"));
        const double gain = 1 / std::sqrt(3.0);  // equation 3 of the paper: standard deviations
        const double sd_a = std::pow(std::sqrt(m) * r / (std::sqrt(n) * n), 0.25) * std::sqrt(gain),
                     sd_b = std::pow(r / std::sqrt(static_cast<double>(m) * n), 0.25) * std::sqrt(gain);
        reference::SwitchedMatrix x(m, n, r, option_real(config.method, "alpha"),
                                    static_cast<int>(integer(config, "freeze_steps")));
        for (int i = 0; i < m * n; ++i) x.w[i] = config.model.init_std * normal(key(name + ".weight"), i);
        for (int side : {0, 1}) {
            const std::uint64_t stream =
                key(name + (side == 0 ? ".lora_A candidates" : ".lora_B candidates"));
            const double bound = std::sqrt(3.0) * (side == 0 ? sd_a : sd_b);
            for (std::size_t i = 0; i < x.bank[side].size(); ++i)
                x.bank[side][i] = bound * (2 * uniform(stream, i) - 1);
        }
        x.start();
        run.matrices.emplace(name + ".weight", std::move(x));
        const SwitchSettings s = switch_settings(config, m, n);
        if (s.random_order) random.emplace(name + ".weight", SwitchSchedule(s, name));
    }

    void step(std::int64_t t) {
        for (auto& [name, x] : run.matrices) model.set(name, x.effective());
        for (auto& [name, x] : run.dense) {
            Array values;
            for (const auto& number : x.numbers) values.push_back(number.value);
            model.set(name, values);
        }
        run.step(model.gradients(), learning_rate_factor(config, t),
                 [&](const std::string& name, SwitchRing& ring, SwitchRing::Changes& changes) {
                     if (random.count(name)) return draw(random[name], t, ring, changes);
                     ring.advance(count(name, t, ring), changes);
                 });
    }
    /// floor(s) + Bernoulli of the rest, s = r / (interval e^(theta (t + 1))), e^(-theta ratio T) = 0.3.
    int count(const std::string& name, std::int64_t t, const SwitchRing& ring) const {
        const double decay = std::pow(
            0.3, static_cast<double>(t + 1) /
                     (option_real(config.method, "switch_ratio") * static_cast<double>(config.run.steps)));
        const double s = ring.r / option_real(config.method, "switch_interval") * decay;
        const double u = uniform(key("switch count " + name.substr(0, name.size() - 7)), t);
        return static_cast<int>(s) + (u < s - std::floor(s) ? 1 : 0);
    }
    static void draw(SwitchSchedule& schedule, std::int64_t t, SwitchRing& ring,
                     SwitchRing::Changes& changes) {
        schedule.count_down();
        const Switch s = schedule.advance(t);
        for (std::size_t i = 0; i < s.a.slots.size(); ++i) {
            changes[0].push_back({s.a.slots[i], s.a.outgoing[i], s.a.incoming[i]});
            changes[1].push_back({s.b.slots[i], s.b.outgoing[i], s.b.incoming[i]});
        }
        ring.apply(changes);
    }

    /// All state under the names and in the shapes of a checkpoint.
    testing::WholeState whole() {
        testing::WholeState all;
        for (auto& [name, x] : run.dense) {
            put(all, name, x, false);
            all["/optimizer/" + name + "/step"] = {static_cast<double>(x.steps.front())};
        }
        for (auto& [name, x] : run.matrices) {
            const std::string linear = name.substr(0, name.size() - 7);
            all["/model/" + name] = x.w;
            Array& tables = all["/method/" + linear + "/switch"] = {static_cast<double>(x.ring.pointer[0]),
                                                                    static_cast<double>(x.ring.pointer[1])};
            for (int side : {0, 1}) {
                const std::string factor = linear + (side == 0 ? ".lora_A" : ".lora_B");
                put(all, factor, x.factor[side], side == 1);
                all["/optimizer/" + factor + "/step"].assign(x.factor[side].steps.begin(),
                                                             x.factor[side].steps.end());
                Array& bank = all["/method/" + linear + (side == 0 ? "/bank_A" : "/bank_B")] = x.bank[side];
                const int width = x.factor[side].cols;
                for (int slot = 0; slot < x.ring.r;
                     ++slot)  // the file holds the current values of active candidates
                    for (int j = 0; j < width; ++j)
                        bank[x.ring.selected[side][slot] * width + j] = x.factor[side].value(slot, j);
                tables.insert(tables.end(), x.ring.selected[side].begin(), x.ring.selected[side].end());
                tables.insert(tables.end(), x.ring.frozen[side].begin(), x.ring.frozen[side].end());
            }
        }
        return all;
    }
    static void put(testing::WholeState& all, const std::string& name, const reference::Trained& x,
                    bool transposed) {
        for (const auto& [path, member] : {std::pair{"/model/" + name, &reference::AdamWNumber::value},
                                           {"/optimizer/" + name + "/m", &reference::AdamWNumber::m},
                                           {"/optimizer/" + name + "/v", &reference::AdamWNumber::v}}) {
            Array& values = all[path];
            values.resize(x.numbers.size());
            for (int i = 0; i < x.rows; ++i)
                for (int j = 0; j < x.cols; ++j)
                    values[transposed ? j * x.rows + i : i * x.cols + j] = x.numbers[i * x.cols + j].*member;
        }
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
        const bool exact = name.ends_with("/step") || name.ends_with("/switch");
        EXPECT_LE(error, exact ? 0 : tolerance * largest) << name;
        if (!exact && largest > 0) worst = std::max(worst, error / largest);
    }
    return worst;
}

enum class Products { merged, unmerged };

/// How products of the adapted linears run on one rank; a smaller slice or batch may choose the other way.
void expect_products(TinyRun& run, Products expected) {
    for (Linear* linear : run.state().model.linears())
        EXPECT_EQ(linear->adapter()->merged(), expected == Products::merged) << linear->name();
}

void expect_reference(const std::vector<std::string>& arguments, int most_steps, Products products) {
    const int steps = testing::reference_steps(most_steps), interval = steps / 4;
    const Config config = tiny_config(arguments);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool root = rank == 0;
    std::vector<testing::WholeState> expected;  // after 0, interval, 2 interval, ... steps
    std::vector<double> norms;
    if (root) {
        Reference reference(config);
        std::int64_t frozen = 0;
        expected.push_back(reference.whole());
        for (int t = 0; t < steps; ++t) {
            reference.step(t);
            norms.push_back(reference.run.grad_norm);
            for (const auto& [name, x] : reference.run.matrices)
                frozen += std::count(x.ring.frozen[0].begin(), x.ring.frozen[0].end(), 1);
            if ((t + 1) % interval == 0) expected.push_back(reference.whole());
        }
        EXPECT_GT(frozen, 0);
        EXPECT_GT(*std::max_element(norms.begin(), norms.end()), config.optim.clip_norm)
            << "nothing is clipped";
    }
    testing::for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        if (topology.world.size() == 1) expect_products(run, products);
        double worst = 0;
        for (int t = 0; t <= steps; ++t) {
            if (t % interval == 0) {
                SCOPED_TRACE(::testing::Message() << "after " << t << " steps");
                const testing::WholeState state = testing::whole_state(run.state());
                if (root) worst = std::max(worst, expect_same(state, expected[t / interval], 1e-11));
            }
            if (t == steps) break;
            const double norm = run.step().grad_norm;
            if (!root) continue;
            EXPECT_NEAR(norm, norms[t], 1e-11 * norms[t]) << "step " << t;
        }
        if (root)
            fmt::print("tp {} dp {}: largest difference {:.1e}\n", here.parallel.tp, topology.dp_size(),
                       worst);
    });
}

/// optim.eps: an element whose gradient is rounding noise would otherwise move by the full rate in its
/// direction.
std::vector<std::string> with_schedule(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(),
                     {"--model.num_layers=1", "--run.steps=200", "--method.switch_interval=6",
                      "--method.freeze_steps=3", "--method.switch_ratio=1", "--optim.eps=1e-4"});
    return arguments;
}

TEST(SwitchLoraTest, RingEqualsOneProcess) {
    expect_reference(with_schedule({"--data.seq_len=4"}), 200, Products::merged);
}

TEST(SwitchLoraTest, RandomOrderEqualsOneProcess) {
    expect_reference(with_schedule({"--data.seq_len=2", "--model.hidden_size=48", "--method.rank=7",
                                    "--method.switch_order=random"}),
                     100, Products::unmerged);
}

TEST(SwitchLoraTest, FixedSlotsAndShardedWeightsEqualOneProcess) {
    expect_reference(with_schedule({"--data.seq_len=4", "--method.rank=5", "--parallel.rotate=false",
                                    "--optim.dense_lr=0.004", "--parallel.shard_frozen=true"}),
                     60, Products::merged);
}

}  // namespace
}  // namespace switchyard

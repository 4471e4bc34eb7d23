// Does training with switched low-rank shards cost more time than full-rank training? Steps of the 60m model
// with methods full and switchlora (low rank = hidden / 4, switch_interval 40), in alternating order in one
// call; the share of switching at the initial frequency, waiting for other ranks included; what linears of
// one input save by sharing the products with their factors. All cores in one rank: OMP_NUM_THREADS=2
// bench_switch [f32|bf16] [rounds] [sequences]; two ranks: the same under mpirun -n 2.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "bench_support.hpp"
#include "config/option_table.hpp"
#include "kernels/matmul.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t seq_len = 512, low_rank = 128, interval = 40;

struct Sizes {
    std::string dtype;
    int rounds, sequences;
};

Config configuration(const Sizes& sizes, const std::string& method, int ranks) {
    std::vector<std::string> keys{"--model.preset=60m",
                                  "--model.vocab_size=32100",
                                  "--data.tokens=none",
                                  "--run.steps=40000",  // keeps the frequency at its initial value
                                  "--method.name=" + method,
                                  "--run.dtype=" + sizes.dtype,
                                  fmt::format("--data.seq_len={}", seq_len),
                                  fmt::format("--data.micro_batch={}", std::min(4, sizes.sequences / ranks)),
                                  fmt::format("--data.global_batch={}", sizes.sequences)};
    if (method == "switchlora") {
        keys.push_back(fmt::format("--method.rank={}", low_rank));
        keys.push_back(fmt::format("--method.switch_interval={}", interval));
    }
    Config config = parse_config("", "", keys, method_options()).config;
    resolve_auto(config);
    return config;
}

/// The state of one method and the times of its steps, in s; the times are those of the slowest rank.
class Contestant {
  public:
    Contestant(const Sizes& sizes, const std::string& method, const Topology& topology)
        : topology_(topology),
          config_(configuration(sizes, method, topology.dp_size())),
          allocated_(allocate_state(config_, topology, traffic_)) {
        state().initialise();
        timer_.on_lap([this](Phase phase) {
            const double now = seconds_now();
            if (phase == Phase::switching) switching_ = now - last_lap_;
            last_lap_ = now;
        });
    }

    void step(bool timed) {
        barrier(topology_.world);
        timer_.reset();
        const double start = seconds_now();
        const StepResult result =
            train_step(state(), random_tokens(seq_len, config_.model.vocab_size), timer_);
        const double took = all_reduce_max(topology_.world, seconds_now() - start);
        require_uniform_loss(result, fmt::format("step {} of {}", state().step, config_.method.name),
                             config_.model.vocab_size);
        if (!timed) return;
        step_s.push_back(took);
        switching_share.push_back(all_reduce_max(topology_.world, switching_) / took);
        vectors_switched += result.method.vectors_switched;
    }

    TrainState& state() { return *allocated_->state; }
    const Config& config() const { return config_; }

    std::vector<double> step_s, switching_share;
    std::int64_t vectors_switched = 0;

  private:
    const Topology& topology_;
    Config config_;
    Traffic traffic_;
    std::unique_ptr<AllocatedState> allocated_;
    PhaseTimer timer_;
    double last_lap_ = 0, switching_ = 0;
};

/// The time of the products of `count` linears' common input (N, C) with their factors A, forward and for the
/// gradients of A, one after the other, over that of one product for all: a ratio for each of many turns.
std::vector<double> gains_of_sharing(DType dtype, std::int64_t tokens, std::int64_t width, int count) {
    using kernels::Op;
    const std::int64_t all = count * low_rank;
    const Buffer input(dtype, {tokens, width}), factors(dtype, {all, width}),
        gradients(accumulate_type(dtype), {all, width});
    const Buffer shared(dtype, {tokens, all}), separate(dtype, {count * tokens, low_rank});
    const auto multiply = [&](Tensor a, Tensor d_a, Tensor y) {
        kernels::matmul({.a = input.tensor(), .b = a, .c = y, .op_b = Op::transpose});
        kernels::matmul({.a = y, .b = input.tensor(), .c = d_a, .op_a = Op::transpose});
    };
    const auto time_of = [](const auto& work) {
        const double start = seconds_now();
        work();
        return seconds_now() - start;
    };
    std::vector<double> ratios;
    for (int turn = -1; turn < 60; ++turn) {  // the first one makes the products
        const double together =
            time_of([&] { multiply(factors.tensor(), gradients.tensor(), shared.tensor()); });
        const double apart = time_of([&] {
            for (int i = 0; i < count; ++i)
                multiply(factors.tensor().rows(i * low_rank, low_rank),
                         gradients.tensor().rows(i * low_rank, low_rank),
                         separate.tensor().rows(i * tokens, tokens));
        });
        if (turn >= 0) ratios.push_back(apart / together);
    }
    return ratios;
}

void run(const Sizes& sizes) {
    const Topology topology = Topology::create(Comm::duplicate(MPI_COMM_WORLD), 1);
    Contestant full(sizes, "full", topology), switched(sizes, "switchlora", topology);
    for (int i = 0; i < 2; ++i) full.step(false), switched.step(false);
    for (int i = 0; i < sizes.rounds; ++i) {  // so that each method runs first in turn
        if (i % 2 == 0) full.step(true), switched.step(true);
        if (i % 2 == 1) switched.step(true), full.step(true);
    }
    const double matrices = static_cast<double>(switched.state().model.linears().size());
    const double expected = 2.0 * low_rank / interval * matrices * sizes.rounds;
    const auto seen = static_cast<double>(switched.vectors_switched);
    require(std::abs(seen - expected) < 0.25 * expected,
            "{} vectors were switched in {} steps, expected about {}: not the initial frequency", seen,
            sizes.rounds, expected);
    const Config& config = switched.config();
    const std::int64_t tokens = config.data.micro_batch * seq_len;
    barrier(topology.world);
    const std::vector<double> of_three = gains_of_sharing(dtype_from_name(config.run.dtype), tokens,
                                                          config.model.hidden_size, 3),
                              of_two = gains_of_sharing(dtype_from_name(config.run.dtype), tokens,
                                                        config.model.hidden_size, 2);
    if (topology.world.rank() != 0) return;
    std::vector<double> ratios, percent;
    for (int i = 0; i < sizes.rounds; ++i) {
        ratios.push_back(switched.step_s[i] / full.step_s[i]);
        percent.push_back(100 * switched.switching_share[i]);
    }
    fmt::print(
        "60m {}, {} tokens per step, {} rank(s) of {} thread(s), {} rounds: median (lowest to highest)\n",
        sizes.dtype, sizes.sequences * seq_len, topology.world.size(), kernels::num_threads(), sizes.rounds);
    fmt::print("  full                         {} s per step\n", spread(full.step_s, 3));
    fmt::print("  switchlora, low rank {:<5}   {} s per step\n", low_rank, spread(switched.step_s, 3));
    fmt::print("  switchlora / full            {}\n", spread(ratios, 3));
    fmt::print("  switching, of its step       {} %, {:.0f} vectors per step\n", spread(percent, 2),
               seen / sizes.rounds);
    fmt::print(
        "  factor products of {} tokens, linears apart / sharing them: q, k and v {}, gate and up {}\n",
        tokens, spread(of_three, 3), spread(of_two, 3));
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
    using namespace switchyard;
    MpiSession session(argc, argv);
    try {
        const Sizes sizes{argc > 1 ? argv[1] : "bf16", argc > 2 ? std::atoi(argv[2]) : 6,
                          argc > 3 ? std::atoi(argv[3]) : 16};
        require(sizes.rounds > 0 && sizes.sequences > 0, "use: bench_switch [f32|bf16] [rounds] [sequences]");
        run(sizes);
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        abort_job();
    }
}

// How near a full-rank training step of the 60m model comes to the bound of design section 9: every product
// at the best rate that any formulation of its shape reaches here, everything else at the bytes it must move
// over the measured memory bandwidth. Prints where the rest goes. The step is the best of many like each
// product: one product finds an undisturbed moment on a shared machine sooner than a whole step does.
// OMP_NUM_THREADS=2 bench_bound [f32|bf16] [rounds], or on data-parallel ranks, which measure at the same
// time: mpirun -n 2 bench_bound ...
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "bench_support.hpp"
#include "comm/collectives.hpp"
#include "config/option_table.hpp"
#include "kernels/attention.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"

namespace switchyard {
namespace {

using kernels::Op;

const Comm* all_ranks = nullptr;

template <class... Values>
void say(fmt::format_string<Values...> text, Values&&... values) {
    if (all_ranks->rank() == 0) fmt::print(text, std::forward<Values>(values)...);
}

/// The shortest of `repeats` times, in s, of `work` on all ranks at once; the slowest rank counts.
double best_time(const std::function<void()>& work, int repeats = 5) {
    work();
    double best = 1e300;
    barrier(*all_ranks);
    for (int i = 0; i < repeats; ++i) {
        const double start = seconds_now();
        work();
        best = std::min(best, seconds_now() - start);
    }
    return all_reduce_max(*all_ranks, best);
}

struct Product {
    std::string what;
    std::int64_t m, n, k;
    Op op_a, op_b;
    bool into_gradient;  // accumulates in accumulate_type
    double count;        // per step
};

double time_product(const Product& p, Op op_a, Op op_b, bool accumulate, DType dtype, DType out) {
    const Buffer a(dtype, op_a == Op::none ? Shape{p.m, p.k} : Shape{p.k, p.m});
    const Buffer b(dtype, op_b == Op::none ? Shape{p.k, p.n} : Shape{p.n, p.k});
    const Buffer c(out, {p.m, p.n});
    return best_time([&] {
        kernels::matmul({.a = a.tensor(),
                         .b = b.tensor(),
                         .c = c.tensor(),
                         .op_a = op_a,
                         .op_b = op_b,
                         .accumulate = accumulate});
    });
}

/// The best formulation of this shape, whichever the step uses.
double best_product(const Product& p, DType dtype) {
    double best = 1e300;
    for (Op op_a : {Op::none, Op::transpose})
        for (Op op_b : {Op::none, Op::transpose})
            best = std::min(best, time_product(p, op_a, op_b, false, dtype, dtype));
    return best;
}

/// Forward and backward of all heads of one layer, as the step calls them, s.
double time_attention(const ModelConfig& m, std::int64_t batch, std::int64_t t, DType dtype) {
    const std::int64_t heads = m.num_heads;
    const Shape shape{batch, t, heads, m.hidden_size / heads};
    const Buffer q(dtype, shape), k(dtype, shape), v(dtype, shape), o(dtype, shape), d_o(dtype, shape),
        d_q(dtype, shape), d_k(dtype, shape), d_v(dtype, shape),
        lse(accumulate_type(dtype), {batch, heads, t});
    const auto scratch_bytes =
        static_cast<std::int64_t>(kernels::attention_scratch_bytes(shape, shape, dtype));
    const Buffer scratch(DType::f32, {(scratch_bytes + 3) / 4});
    return best_time([&] {
        kernels::attention_forward(q.tensor(), k.tensor(), v.tensor(), {}, o.tensor(), lse.tensor(),
                                   scratch.tensor());
        kernels::attention_backward({.d_o = d_o.tensor(),
                                     .q = q.tensor(),
                                     .k = k.tensor(),
                                     .v = v.tensor(),
                                     .o = o.tensor(),
                                     .lse = lse.tensor(),
                                     .first_key = {},
                                     .d_q = d_q.tensor(),
                                     .d_k = d_k.tensor(),
                                     .d_v = d_v.tensor(),
                                     .scratch = scratch.tensor()});
    });
}

double bandwidth() {
    const std::int64_t size = std::int64_t{1} << 26;
    const Buffer from(DType::f32, {size}), to(DType::f32, {size});
    return 3.0 * 4.0 * static_cast<double>(size) /
           best_time([&] { kernels::add(from.tensor(), to.tensor(), 0.5); });
}

std::vector<Product> products_of_step(const ModelConfig& m, std::int64_t tokens, std::int64_t vocab,
                                      std::int64_t chunk) {
    const auto layers = static_cast<double>(m.num_layers);
    std::vector<Product> all;
    const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in, std::int64_t n,
                            double count) {
        all.push_back({name + " y = x W'", n, out, in, Op::none, Op::transpose, false, count});
        all.push_back({name + " dx = dy W", n, in, out, Op::none, Op::none, false, count});
        all.push_back({name + " dW += dy' x", out, in, n, Op::transpose, Op::none, true, count});
    };
    linear("attention", m.hidden_size, m.hidden_size, tokens, 4 * layers);
    linear("gate, up", m.ffn_size, m.hidden_size, tokens, 2 * layers);
    linear("down", m.hidden_size, m.ffn_size, tokens, layers);
    const double chunks = static_cast<double>(tokens) / static_cast<double>(chunk);
    all.push_back({"head y' = W x'", vocab, chunk, m.hidden_size, Op::none, Op::transpose, false, chunks});
    all.push_back({"head dx = dy W", chunk, m.hidden_size, vocab, Op::transpose, Op::none, false, chunks});
    all.push_back({"head dW += dy' x", vocab, m.hidden_size, chunk, Op::none, Op::none, true, chunks});
    return all;
}

/// Bytes that everything but products must move: each operand once, in the types that the step uses. On
/// `ranks` data-parallel ranks each sums and updates its share of the gradients, and gets the shares of the
/// others.
double other_bytes(const ModelConfig& m, std::int64_t tokens, std::int64_t vocab, double parameters,
                   double element, double ranks) {
    const auto n = static_cast<double>(tokens), c = static_cast<double>(m.hidden_size),
               f = static_cast<double>(m.ffn_size);
    const auto layers = static_cast<double>(m.num_layers), v = static_cast<double>(vocab);
    const double norms = (2 * layers + 1) * (4 + 4) * n * c;  // x, y -> sum, h; backward d_h, x, d_x -> d_x
    const double rope = layers * 2 * 2 * 2 * n * c;           // q, k in place, both ways
    const double attention = layers * (4 + 8) * n * c;
    const double swiglu = layers * (3 + 3 + 5) * n * f;  // forward, recomputation, backward
    const double loss = 3 * n * v;                       // statistics; gradient in place
    const double embedding = 4 * n * c;
    const double owned = parameters / ranks;
    const double optimizer =
        4 * parameters + 4 * owned * (1 + 4 + 3);  // zero; norm, AdamW's reads and writes
    const double sums = ranks > 1 ? 4 * owned * (ranks + 1) + 2 * element * (parameters - owned) : 0;
    return element * (norms + rope + attention + swiglu + loss + embedding) + optimizer + sums;
}

int run(const Comm& world, const std::string& dtype_name, int rounds) {
    all_ranks = &world;
    const int ranks = world.size();
    require(4 % ranks == 0, "{} ranks do not divide 4 sequences", ranks);
    require(rounds > 0, "use: bench_bound [f32|bf16] [rounds]");
    std::vector<std::string> keys{
        "--model.preset=60m",        "--model.vocab_size=32100",
        "--method.name=full",        "--data.tokens=none",
        "--data.seq_len=512",        "--data.global_batch=4",
        "--run.dtype=" + dtype_name, fmt::format("--data.micro_batch={}", 4 / ranks)};
    Config config = parse_config("", "", keys, method_options()).config;
    resolve_auto(config);
    const DType dtype = dtype_from_name(dtype_name), gradient = accumulate_type(dtype);
    const std::int64_t tokens = 2048 / ranks, t = config.data.seq_len;
    const ModelConfig& model = config.model;
    const std::int64_t vocab = padded_block(model.vocab_size, 1, 0).padded,
                       chunk = dtype == DType::bf16 ? 512 : 256;

    const Topology topology = Topology::create(world, 1);
    Traffic traffic;
    auto allocated = allocate_state(config, topology, traffic);
    TrainState& state = *allocated->state;
    state.initialise();
    const BatchSource source = random_tokens(t, model.vocab_size);
    PhaseTimer timer;
    double step_s = 1e300;
    std::vector<double> step_ms;
    std::map<int, double> phases;
    for (int i = 0; i <= rounds; ++i) {
        timer.reset();
        barrier(world);
        const double start = seconds_now();
        const StepResult result = train_step(state, source, timer);
        const double took = all_reduce_max(world, seconds_now() - start);
        require_uniform_loss(result, fmt::format("step {}", i), model.vocab_size);
        if (i == 0) continue;
        step_ms.push_back(1e3 * took);
        if (took >= step_s) continue;
        step_s = took;
        for (int p = 0; p < num_phases; ++p) phases[p] = timer.seconds(static_cast<Phase>(p));
    }

    double parameters = 0;
    for (Parameter* p : state.model.parameters()) parameters += static_cast<double>(p->value.size());
    const double rate = bandwidth();
    double bound = 0, as_called = 0, flops = 0;
    say("{:<28} {:>18} {:>6} {:>12} {:>12} {:>10} {:>10}\n", "product", "m x n x k", "count", "best GFLOP/s",
        "here GFLOP/s", "best ms", "here ms");
    for (const Product& p : products_of_step(model, tokens, vocab, chunk)) {
        const double operations =
            2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
        const double here =
            time_product(p, p.op_a, p.op_b, p.into_gradient, dtype, p.into_gradient ? gradient : dtype);
        const double best = std::min(here, best_product(p, dtype));
        say("{:<28} {:>18} {:>6.0f} {:>12.0f} {:>12.0f} {:>10.1f} {:>10.1f}\n", p.what,
            fmt::format("{}x{}x{}", p.m, p.n, p.k), p.count, operations / best / 1e9, operations / here / 1e9,
            1e3 * best * p.count, 1e3 * here * p.count);
        bound += best * p.count;
        as_called += here * p.count;
        flops += operations * p.count;
    }
    const Product scores{"attention scores", t,     t, model.hidden_size / model.num_heads, Op::none,
                         Op::transpose,      false, 0};
    const double heads = 4.0 / ranks * static_cast<double>(model.num_heads * model.num_layers);
    const double attention =
        best_product(scores, dtype) * heads * 7 / 2;  // 2 products forward, 5 backward, half of each masked
    const double others =
        other_bytes(model, tokens, vocab, parameters, static_cast<double>(size_of(dtype)), ranks) / rate;
    const double total = bound + attention + others;
    say("\n{:<44} {:>10} {:>10}\n", "", "bound ms", "here ms");
    say("{:<44} {:>10.1f} {:>10.1f}\n", "products of linears and head", 1e3 * bound, 1e3 * as_called);
    const double attention_here =
        time_attention(model, 4 / ranks, t, dtype) * static_cast<double>(model.num_layers);
    say("{:<44} {:>10.1f} {:>10.1f}\n", "attention (bound: its products)", 1e3 * attention,
        1e3 * attention_here);
    say("{:<44} {:>10.1f}\n", fmt::format("everything else at {:.1f} GB/s", rate / 1e9), 1e3 * others);
    say("{:<44} {:>10} {:>10.1f}\n", "memory-bound kernels, waiting, the rest", "",
        1e3 * (step_s - as_called - attention_here));
    say("{:<44} {:>10.1f} {:>10.1f}\n", "step", 1e3 * total, 1e3 * step_s);
    for (int p = 0; p < num_phases; ++p)
        if (phases[p] > 0)
            say("  of it {:<38} {:>10} {:>10.1f}\n", name_of(static_cast<Phase>(p)), "", 1e3 * phases[p]);
    say("  all {} steps, median (lowest to highest): {} ms\n", rounds, spread(step_ms, 1));
    const double peak = kernels::measure_peak_flops(dtype);
    say("\n{} 60m, 4 x 512, {} ranks: {:.0f} tokens/s, {:.2f} of the bound, {:.2f} of the peak of {:.0f} "
        "GFLOP/s a rank\n",
        dtype_name, ranks, static_cast<double>(tokens * ranks) / step_s, total / step_s,
        flops / step_s / peak, peak / 1e9);
    return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
    using namespace switchyard;
    MpiSession session(argc, argv);
    const Comm world = Comm::duplicate(MPI_COMM_WORLD);
    try {
        return run(world, argc > 1 ? argv[1] : "f32", argc > 2 ? std::atoi(argv[2]) : 40);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        abort_job();
    }
}

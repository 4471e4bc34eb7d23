// Checks and rates of kernels, a line each.
#include "selftest/compute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "comm/messages.hpp"
#include "core/arena.hpp"
#include "core/units.hpp"
#include "kernels/attention.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/matmul.hpp"
#include "kernels/random.hpp"
#include "selftest/kernel_checks.hpp"

namespace switchyard::selftest {
namespace {

constexpr std::array compute_types{DType::f32, DType::bf16, DType::f64};

/// Normal numbers: rates on zeros would flatter a device, whose clock depends on the bits that change.
void fill(Tensor t) {
    kernels::fill_normal(t.reshape({1, t.size()}), {t.size(), 0, 0, 1, t.size()}, 1, 1.0);
}

struct Worst {
    double share = 0;
    char what[32] = "";  // travels between ranks
};

Worst worst_of(const std::vector<Comparison>& comparisons) {
    Worst worst;
    for (const Comparison& c : comparisons)
        if (const double share = share_of_tolerance(c); share > worst.share) {
            worst.share = share;
            c.what.copy(worst.what, sizeof worst.what - 1);
        }
    return worst;
}

Line kernel_line(const Setting& setting, const KernelCheck& check) {
    Line line{.section = "kernels", .name = check.name};
    std::array<Worst, compute_types.size()> mine;
    const std::string problem = problem_of(setting, [&] {
        for (std::size_t i = 0; i < compute_types.size(); ++i)
            mine[i] = worst_of(check.run(compute_types[i]));
    });
    if (!problem.empty()) {
        line.verdict = Verdict::failed;
        line.result = "not computed";
        line.advice = problem;
        return line;
    }
    const auto all = gather_values(setting.topology.world, mine);
    for (std::size_t i = 0; i < compute_types.size(); ++i) {
        const auto worse_share = [i](const auto& a, const auto& b) { return a[i].share < b[i].share; };
        const auto at = std::max_element(all.begin(), all.end(), worse_share);
        const Worst& worst = (*at)[i];
        const char* type = switchyard::name_of(compute_types[i]);
        line.result += fmt::format("{}{} {:.2f}", i == 0 ? "" : ", ", type, worst.share);
        line.numbers["error_of_tolerance"][type] = worst.share;
        if (verdict_of_error(worst.share) == Verdict::ok || line.verdict == Verdict::failed) continue;
        line.verdict = Verdict::failed;
        line.advice = fmt::format(
            "{} of {} in {} is wrong on {} (training there would be wrong without a word); check how the "
            "program was built (SWITCHYARD_ARCH, versions of compiler and libraries), then the hardware",
            worst.what, check.name, type, setting.rank_text(static_cast<int>(at - all.begin())));
    }
    line.result += " of the tolerance";
    return line;
}

/// The tensors of one product, in one block.
struct ProductMemory {
    Tensor a, b, c;
    Arena arena;
    ProductMemory(const ProductShape& p, DType dtype) {
        arena = allocate_scratch([&](Arena& arena) {
            const auto take = [&](DType type, bool transposed, std::int64_t rows, std::int64_t columns) {
                return arena.take(MemoryClass::workspace, type,
                                  transposed ? Shape{columns, rows} : Shape{rows, columns});
            };
            a = take(dtype, p.transpose_a, p.m, p.k);
            b = take(dtype, p.transpose_b, p.k, p.n);
            c = take(p.to_accumulate_type ? accumulate_type(dtype) : dtype, false, p.m, p.n);
        });
        fill(a);
        fill(b);
    }
};

/// The first of many names, for the table.
std::string first_names(const std::string& names) {
    const auto more = std::count(names.begin(), names.end(), ' ');
    return more < 4 ? names : fmt::format("{} and {} more", names.substr(0, names.find(' ')), more);
}

Line product_line(const Setting& setting, const ProductShape& p) {
    Line line{.section = "products", .name = fmt::format("{}, {}", first_names(p.name), p.pass)};
    std::optional<ProductMemory> memory;
    Timing timing;
    timing.problem = problem_of(setting, [&] { memory.emplace(p, setting.dtype); });
    if (timing.problem.empty())
        timing = time_of(setting, [&] {
            kernels::matmul({.a = memory->a,
                             .b = memory->b,
                             .c = memory->c,
                             .op_a = p.transpose_a ? kernels::Op::transpose : kernels::Op::none,
                             .op_b = p.transpose_b ? kernels::Op::transpose : kernels::Op::none,
                             .accumulate = p.to_accumulate_type});
        });
    line.name += fmt::format(" {}x{}x{}", p.m, p.n, p.k);
    line.numbers = {{"weights", p.name},
                    {"pass", p.pass},
                    {"m", p.m},
                    {"n", p.n},
                    {"k", p.k},
                    {"transpose_a", p.transpose_a},
                    {"transpose_b", p.transpose_b},
                    {"accumulate", p.to_accumulate_type},
                    {"dtype", switchyard::name_of(setting.dtype)}};
    return rate_line(setting, std::move(line), timing, p.flop(), "FLOP/s");
}

/// One large square product; `rates`: of all ranks, empty if they could not be had.
Line square_line(const Setting& setting, DType dtype, std::vector<double>& rates) {
    Line line{.section = "products", .name = fmt::format("square {}", switchyard::name_of(dtype))};
    double rate = 0;
    Timing timing;
    barrier(setting.topology.world);
    timing.problem = problem_of(setting, [&] { rate = kernels::measure_peak_flops(dtype); });
    if (timing.problem.empty()) {
        rates = gather_values(setting.topology.world, rate);
        for (double r : rates) timing.seconds.push_back(1 / r);
    }
    const std::int64_t n = kernels::peak_product_size(dtype);
    line.numbers = {{"weights", "square"},
                    {"pass", "forward"},
                    {"m", n},
                    {"n", n},
                    {"k", n},
                    {"transpose_a", false},
                    {"transpose_b", false},
                    {"accumulate", false},
                    {"dtype", switchyard::name_of(dtype)}};
    return rate_line(setting, std::move(line), timing, 1, "FLOP/s");
}

}  // namespace

std::vector<Line> kernel_lines(const Setting& setting) {
    std::vector<Line> lines;
    for (const KernelCheck& check : kernel_checks()) lines.push_back(kernel_line(setting, check));
    return lines;
}

std::vector<Line> product_lines(const Setting& setting) {
    std::vector<Line> lines;
    double peak = 0, median_f32 = 0;
    for (DType dtype : compute_types) {
        std::vector<double> rates;
        lines.push_back(square_line(setting, dtype, rates));
        const Spread spread = spread_of(rates);
        if (dtype == DType::f32) median_f32 = spread.median;
        if (dtype == setting.dtype) peak = spread.least;
        if (dtype != DType::bf16 || setting.dtype != DType::bf16 || rates.empty()) continue;
        if (lines.back().verdict != Verdict::ok ||
            verdict_of_rate(spread.median, 0.8 * median_f32) == Verdict::ok)
            continue;
        lines.back().verdict = Verdict::slow;
        lines.back().advice =
            "bf16 products are slower than f32 here (the processor has no instructions for them, or the "
            "library does not use them); set run.dtype = f32";
    }
    // A fifth of a second at the best rate: long enough for any shape, and all of them in some seconds.
    for (const ProductShape& shape : product_shapes(setting, std::max(0.2 * peak, 1e6)))
        lines.push_back(product_line(setting, shape));
    return lines;
}

std::vector<Line> copy_lines(const Setting& setting) {
    constexpr std::int64_t elements = 16 << 20;  // of f32: more than caches hold, of processors and of GPUs
    Arena arena;
    Tensor from, to;
    Timing timing;
    timing.problem = problem_of(setting, [&] {
        arena = allocate_scratch([&](Arena& a) {
            from = a.take(MemoryClass::workspace, DType::f32, {elements});
            to = a.take(MemoryClass::workspace, DType::f32, {elements});
        });
        fill(from);
    });
    if (timing.problem.empty()) timing = time_of(setting, [&] { kernels::copy(from, to); });
    const double bytes = 2.0 * elements * sizeof(float);
    Line line{.section = "memory", .name = "copy, read and written"};
    line.numbers = {{"operation", "copy"}, {"bytes_read_and_written", bytes}};
    return {rate_line(setting, std::move(line), timing, bytes, "B/s")};
}

std::vector<Line> attention_lines(const Setting& setting) {
    const ModelConfig& model = setting.config.model;
    const std::int64_t tp = setting.topology.tp_size(), heads = model.num_heads / tp,
                       kv_heads = model.num_kv_heads / tp, size = model.hidden_size / model.num_heads;
    std::int64_t sequences = setting.config.data.micro_batch, seq_len = setting.config.data.seq_len;
    const auto flop = [&] {  // two products over half of the pairs of tokens
        return 2.0 * static_cast<double>(sequences * heads * size) * static_cast<double>(seq_len) *
               static_cast<double>(seq_len);
    };
    // Long sequences are cut, as products are, so that slow processors are done in time.
    while (flop() > 4e9 && sequences > 1) sequences = (sequences + 1) / 2;
    while (flop() > 4e10 && seq_len > 1024) seq_len /= 2;

    const Shape queries{sequences, seq_len, heads, size}, keys{sequences, seq_len, kv_heads, size};
    Tensor q, k, v, o, d_o, d_q, d_k, d_v, lse, scratch;
    Arena arena;
    const std::string problem = problem_of(setting, [&] {
        arena = allocate_scratch([&](Arena& a) {
            for (Tensor* t : {&q, &o, &d_o, &d_q})
                *t = a.take(MemoryClass::workspace, setting.dtype, queries);
            for (Tensor* t : {&k, &v, &d_k, &d_v}) *t = a.take(MemoryClass::workspace, setting.dtype, keys);
            lse = a.take(MemoryClass::workspace, accumulate_type(setting.dtype), {sequences, heads, seq_len});
            const std::size_t bytes = kernels::attention_scratch_bytes(queries, keys, setting.dtype);
            scratch = a.take(MemoryClass::workspace, DType::u8,
                             {static_cast<std::int64_t>(std::max<std::size_t>(bytes, 1))});
        });
        for (Tensor t : {q, k, v, d_o}) fill(t);
    });
    std::vector<Line> lines;
    const auto add = [&](const char* pass, double amount, const std::function<void()>& work) {
        Timing timing{{}, problem};
        if (problem.empty()) timing = time_of(setting, work);
        Line line{
            .section = "attention",
            .name = fmt::format("{}, {} x {} tokens, {} heads of {}", pass, sequences, seq_len, heads, size)};
        line.numbers = {{"pass", pass},
                        {"sequences", sequences},
                        {"seq_len", seq_len},
                        {"heads", heads},
                        {"kv_heads", kv_heads},
                        {"head_size", size},
                        {"dtype", switchyard::name_of(setting.dtype)}};
        lines.push_back(rate_line(setting, std::move(line), timing, amount, "FLOP/s"));
    };
    add("forward", flop(), [&] { kernels::attention_forward(q, k, v, {}, o, lse, scratch); });
    add("backward", 2.5 * flop(), [&] {  // five products
        kernels::attention_backward({d_o, q, k, v, o, lse, {}, d_q, d_k, d_v, scratch});
    });
    return lines;
}

}  // namespace switchyard::selftest

// Ten steps of a tiny model with PEFT's LoRA, DoRA and Riemannian preconditioner in f64
// (tests/golden/peft_f64.h5, made by tools/make_golden_peft.py from the weights and tokens of llama_f64.h5):
// loss and gradient norm of every step, and what is trained beside the weights after the last one.
// BACK ENDS: all
#include <gtest/gtest.h>

#include "support/golden_run.hpp"

namespace switchyard {
namespace {

using testing::GoldenFile;

/// The transpose of values (rows, cols).
std::vector<double> turned(const std::vector<double>& values, std::int64_t rows, std::int64_t cols) {
    std::vector<double> result(values.size());
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < cols; ++j) result[j * rows + i] = values[i * cols + j];
    return result;
}
/// A factor as the file has it, A (r, n) or B (m, r), and back.
std::vector<double> as_stored(const Parameter& p) {
    const std::vector<double> values = testing::valid_part(p.shard, p.value);
    return p.transposed ? turned(values, p.shard.rows, p.shard.cols) : values;
}
std::vector<double> as_kept(const Parameter& p, const std::vector<double>& stored) {
    return p.transposed ? turned(stored, p.shard.cols, p.shard.rows) : stored;
}

class GoldenPeft : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenPeft, TenStepsEqualPeft) {
    const std::string method = GetParam();
    const GoldenFile model(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5"),
        adapters(SWITCHYARD_SOURCE_DIR "/tests/golden/peft_f64.h5");
    const Topology topology = Topology::imaginary(1, 1, 0);
    std::vector<std::string> keys{"--method.name=" + method,
                                  fmt::format("--method.rank={}", adapters.number("low_rank")),
                                  fmt::format("--method.alpha={}", adapters.number("alpha"))};
    if (method == "riemannian")
        keys.push_back(fmt::format("--method.damping={}", adapters.number("damping")));
    testing::TinyRun run(testing::golden_config(model, adapters, keys), topology);
    TrainState& s = run.state();
    testing::set_golden_weights(s, model);
    s.method->initialise(s.context);
    for (Parameter* p : s.model.parameters()) {
        const std::string& name = p->shard.name;
        if (name.ends_with(".lora_A"))
            testing::set_valid_part(
                p->shard, p->value,
                as_kept(*p, adapters.read<double>("/lora_A/" + name.substr(0, name.size() - 7))));
    }
    testing::expect_golden_steps(run, model, adapters, "/" + method, [](int) {});
    for (Parameter* p : s.model.parameters())
        if (p->role == ParameterRole::factor) {
            const auto expected = adapters.read<double>("/" + method + "/final/" + p->shard.name);
            EXPECT_LT(testing::deviation(as_stored(*p), expected), testing::golden_tolerance)
                << p->shard.name;
        }
}

INSTANTIATE_TEST_SUITE_P(Methods, GoldenPeft, ::testing::Values("lora", "dora", "riemannian"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard

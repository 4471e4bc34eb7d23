// Ten steps of a tiny model with torch.optim.Muon in f64 (tests/golden/muon_f64.h5, made by
// tools/make_golden_muon.py from the weights and tokens of llama_f64.h5): loss and gradient norm of every
// step, and the weights of the linears after the last one.
// BACK ENDS: all
#include <gtest/gtest.h>

#include "support/golden_run.hpp"

namespace switchyard {
namespace {

using testing::GoldenFile;

void expect_torch(const std::string& variant, std::vector<std::string> keys) {
    const GoldenFile model(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5"),
        recorded(SWITCHYARD_SOURCE_DIR "/tests/golden/muon_f64.h5");
    keys.insert(keys.end(),
                {"--method.name=muon", fmt::format("--optim.dense_lr={}", recorded.number("dense_lr"))});
    const Topology topology = Topology::imaginary(1, 1, 0);
    testing::TinyRun run(testing::golden_config(model, recorded, keys), topology);
    TrainState& s = run.state();
    testing::set_golden_weights(s, model);
    testing::expect_golden_steps(run, model, recorded, "/" + variant, [](int) {});
    for (Linear* linear : s.model.linears()) {
        const Parameter& p = linear->dense();
        EXPECT_LT(testing::deviation(testing::valid_part(p.shard, p.value),
                                     recorded.read<double>("/" + variant + "/final/" + p.shard.name)),
                  testing::golden_tolerance)
            << p.shard.name;
    }
}

/// The keys are PyTorch's defaults but for the scale of the update, and ours.
TEST(GoldenMuon, TenStepsOfTheDefaultsEqualPyTorch) {
    expect_torch("default", {});
}

TEST(GoldenMuon, TenStepsOfTheOriginalScaleEqualPyTorch) {
    expect_torch("original", {"--method.momentum=0.8", "--method.nesterov=false", "--method.iterations=4",
                              "--method.update_scale=original"});
}

}  // namespace
}  // namespace switchyard

// Ten steps of a tiny model with galore-torch in f64 (tests/golden/galore_f64.h5, made by
// tools/make_golden_galore.py from the weights and tokens of llama_f64.h5): loss and norm of the projected
// gradients of every step, and weights and bases after the last one. Bases are refreshed in steps 1, 5 and 9.
// BACK ENDS: all
#include <gtest/gtest.h>

#include "methods/galore/projected_adapter.hpp"
#include "support/golden_run.hpp"
#include "support/tensors.hpp"

namespace switchyard {
namespace {

using testing::GoldenFile;

TEST(GoldenGalore, TenStepsEqualGaloreTorch) {
    const GoldenFile model(SWITCHYARD_SOURCE_DIR "/tests/golden/llama_f64.h5"),
        recorded(SWITCHYARD_SOURCE_DIR "/tests/golden/galore_f64.h5");
    std::vector<std::string> keys{"--method.name=galore", "--method.basis=svd",
                                  "--method.refresh_together=true", "--method.projection=std",
                                  fmt::format("--optim.dense_lr={}", recorded.number("dense_lr"))};
    for (const char* key : {"rank", "alpha", "update_interval"})
        keys.push_back(fmt::format("--method.{}={}", key, recorded.number(key)));
    const Topology topology = Topology::imaginary(1, 1, 0);
    testing::TinyRun run(testing::golden_config(model, recorded, keys), topology);
    TrainState& s = run.state();
    testing::set_golden_weights(s, model);
    testing::expect_golden_steps(run, model, recorded, "/svd", [](int) {});
    for (Linear* linear : s.model.linears()) {
        const Shard shard = linear->shard();
        EXPECT_LT(testing::deviation(testing::valid_part(shard, linear->base().words.hi),
                                     recorded.read<double>("/svd/final/" + shard.name)),
                  testing::golden_tolerance)
            << shard.name;
        const auto& adapter = dynamic_cast<ProjectedAdapter&>(*linear->adapter());
        test::Values basis = test::values_of(adapter.basis());
        basis.resize(static_cast<std::size_t>(adapter.projected().size * adapter.basis().dim(1)));
        EXPECT_LT(
            testing::deviation(basis, recorded.read<double>("/svd/final/" + linear->name() + ".projector")),
            testing::golden_tolerance)
            << linear->name();
    }
}

}  // namespace
}  // namespace switchyard

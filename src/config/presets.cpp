// Published LLaMA shapes. `nano` is for tests: its 12 heads divide by 1, 2, 3, 4, 6 and 12, and its
// feed-forward size needs padding for every tp, yet leaves no rank of 4 empty.
#include "config/presets.hpp"

#include <algorithm>
#include <iterator>
#include <vector>

#include "config/value_rule.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

struct Preset {
    const char* name;
    std::int64_t hidden_size, ffn_size, num_layers, num_heads;
};

constexpr Preset presets[] = {
    {"nano", 96, 260, 2, 12},    {"20m", 256, 688, 4, 4},     {"60m", 512, 1376, 8, 8},
    {"130m", 768, 2048, 12, 12}, {"250m", 768, 2560, 24, 16}, {"350m", 1024, 2736, 24, 16},
    {"1b", 2048, 5461, 24, 32},  {"3b", 2560, 6848, 32, 32},  {"7b", 4096, 11008, 32, 32},
};

std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const Preset& preset : presets) result.emplace_back(preset.name);
    return result;
}

void fill(std::int64_t& size, std::int64_t value) {
    if (size == 0) size = value;
}

}  // namespace

std::string preset_names() {
    return fmt::format("{}", fmt::join(names(), ", "));
}

void fill_preset(ModelConfig& model) {
    const auto* preset = std::find_if(std::begin(presets), std::end(presets),
                                      [&](const Preset& p) { return model.preset == p.name; });
    require(preset != std::end(presets),
            "model.preset = '{}' is unknown (it names the model's sizes: {}); did you mean '{}'?",
            model.preset, preset_names(), nearest(model.preset, names()));
    fill(model.hidden_size, preset->hidden_size);
    fill(model.ffn_size, preset->ffn_size);
    fill(model.num_layers, preset->num_layers);
    fill(model.num_heads, preset->num_heads);
    fill(model.num_kv_heads, model.num_heads);
}

}  // namespace switchyard

// Keys and values are not cached, so each token costs a pass over the context.
#include "inference/generation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "comm/collectives.hpp"
#include "core/output.hpp"
#include "core/rng.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

/// Gathers the logits of all tp ranks.
class LogitGatherer {
  public:
    explicit LogitGatherer(InferenceState& state) : state_(state) {
        const std::int64_t local = state.model.vocabulary().padded;
        Arena measured;
        take(measured, local);
        arena_ = Arena::allocate(measured);
        take(arena_, local);
    }

    /// The first num_tokens logits of the token after `position`.
    std::vector<double> operator()(std::int64_t position, std::int64_t num_tokens) {
        const Comm& tp = state_.context.topology.tp;
        state_.model.next_token_logits(position, mine_);
        kernels::copy(mine_, mine_wide_);
        start_all_gather(tp, mine_wide_, all_, state_.context.traffic, TrafficGroup::other).wait();
        std::vector<double> logits(static_cast<std::size_t>(all_.size()));
        kernels::download(all_, logits.data());
        logits.resize(static_cast<std::size_t>(num_tokens));  // only the last blocks have padding
        return logits;
    }

  private:
    void take(Arena& arena, std::int64_t local) {
        const auto get = [&](DType dtype, std::int64_t rows) {
            return arena.take(MemoryClass::workspace, dtype, {rows, local});
        };
        mine_ = get(state_.context.dtype, 1);
        mine_wide_ = get(DType::f64, 1);
        all_ = get(DType::f64, state_.context.tp_size());
    }

    InferenceState& state_;
    Arena arena_;
    Tensor mine_, mine_wide_, all_;
};

/// Uploads the last T ids, padded at the end; returns the position of the last id.
std::int64_t upload_context(InferenceState& state, const std::vector<std::int32_t>& ids,
                            std::int32_t padding) {
    const std::int64_t length = state.context.seq_len, count = static_cast<std::int64_t>(ids.size());
    const std::int64_t used = std::min(length, count);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(length), padding), ignored(tokens.size(), -1);
    std::copy(ids.end() - used, ids.end(), tokens.begin());
    kernels::upload(tokens.data(), state.model.batch().tokens);
    kernels::upload(ignored.data(), state.model.batch().targets);
    if (!state.model.batch().first_key.empty()) {
        std::vector<std::int32_t> starts(tokens.size(), 0);
        for (std::size_t i = 1; i < starts.size(); ++i)
            starts[i] = tokens[i - 1] == padding ? static_cast<std::int32_t>(i) : starts[i - 1];
        kernels::upload(starts.data(), state.model.batch().first_key);
    }
    return used - 1;
}

}  // namespace

std::int32_t draw_token(const std::vector<double>& logits, const GenerationSettings& settings, double u) {
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const std::size_t wanted = settings.temperature == 0 ? 1
                               : settings.top_k > 0      ? static_cast<std::size_t>(settings.top_k)
                                                         : order.size();
    const std::size_t k = std::min(order.size(), wanted);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                      [&](std::int32_t a, std::int32_t b) {
                          return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                      });
    if (k == 1) return order[0];
    std::vector<double> weight(k);
    for (std::size_t i = 0; i < k; ++i)
        weight[i] = std::exp((logits[order[i]] - logits[order[0]]) / settings.temperature);
    double left = u * std::accumulate(weight.begin(), weight.end(), 0.0);
    for (std::size_t i = 0; i + 1 < k; ++i) {
        if (left < weight[i]) return order[i];
        left -= weight[i];
    }
    return order[k - 1];
}

void generate(InferenceState& state, const GenerationSettings& settings, std::vector<std::int32_t> ids,
              const std::function<void(std::int32_t)>& on_token) {
    const Comm& world = state.context.topology.world;
    LogitGatherer gather(state);
    const std::uint64_t key = stream_key(settings.seed, "generate");
    for (std::int64_t i = 0; i < settings.max_tokens; ++i) {
        const std::int64_t last = upload_context(state, ids, settings.end_token);
        state.model.read();
        const std::vector<double> logits = gather(last, settings.num_tokens);
        std::int64_t drawn = settings.end_token;  // also ends a text whose reader has left
        if (world.rank() == 0 && result_is_wanted())
            drawn = draw_token(logits, settings, uniform(key, static_cast<std::uint64_t>(i)));
        const auto token = static_cast<std::int32_t>(broadcast(world, drawn));
        if (token == settings.end_token) return;
        ids.push_back(token);
        on_token(token);
    }
}

void TextStream::print() {
    constexpr std::string_view unfinished = "\xEF\xBF\xBD";  // an incomplete character decodes to this
    std::string text = tokenizer_.decode(ids_);
    while (text.ends_with(unfinished)) text.resize(text.size() - unfinished.size());
    if (text.size() <= printed_.size() || text.compare(0, printed_.size(), printed_) != 0) return;
    write_text_result(text.substr(printed_.size()));
    flush_results();
    printed_ = std::move(text);
}

void TextStream::finish() {
    const std::string text = tokenizer_.decode(ids_);
    if (text.compare(0, printed_.size(), printed_) == 0) write_text_result(text.substr(printed_.size()));
    write_result("\n");
    flush_results();
}

}  // namespace switchyard

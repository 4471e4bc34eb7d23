// RANKS: 1 2 4
// Generated tokens on every layout. The expected greedy tokens come from models whose context has exactly the
// length of the text so far: without padding, on one process, with the most likely token picked by the test.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "inference/generation.hpp"
#include "kernels/transfer.hpp"
#include "support/layouts.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using Ids = std::vector<std::int32_t>;
using testing::for_each_layout;
using testing::tiny_config;

constexpr std::int64_t context_length = 8, vocab_size = 53;
const Ids prompt{3, 17, 40};

/// The weights are large, so that logits are far apart.
Config config_of(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"--method.name=full", "--model.init_std=0.5", "--data.micro_batch=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return tiny_config(arguments);
}

std::unique_ptr<AllocatedInference> seeded(const Config& config, const Topology& topology, Traffic& traffic) {
    auto result = allocate_inference(config, topology, traffic);
    result->state->model.initialise(result->state->context);
    result->state->model.weights_changed();
    return result;
}

/// Logits after all of `ids`.
test::Values next_logits(Config config, const Ids& ids) {
    config.data.seq_len = static_cast<std::int64_t>(ids.size());
    const Topology one = testing::serial();
    Traffic traffic;
    const auto allocated = seeded(config, one, traffic);
    Transformer& model = allocated->state->model;
    kernels::upload(ids.data(), model.batch().tokens);
    kernels::upload(Ids(ids.size(), -1).data(), model.batch().targets);
    model.read();
    const test::HostTensor logits(DType::f64, {1, model.vocabulary().padded});
    model.next_token_logits(config.data.seq_len - 1, logits);
    test::Values values = logits.values();
    values.resize(vocab_size);
    return values;
}

/// `count` ids after `text`, each picked from the logits of the first num_tokens ids and the number of the
/// draw.
template <class Pick>
Ids continuation(const Config& config, Ids text, std::int64_t count, std::int64_t num_tokens,
                 const Pick& pick) {
    Ids added;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto used = std::min<std::ptrdiff_t>(context_length, static_cast<std::ptrdiff_t>(text.size()));
        test::Values logits = next_logits(config, {text.end() - used, text.end()});
        logits.resize(num_tokens);
        added.push_back(pick(logits, i));
        text.push_back(added.back());
    }
    return added;
}

Ids most_likely(const Config& config, const Ids& text, std::int64_t count, std::int64_t num_tokens) {
    return continuation(config, text, count, num_tokens, [](const test::Values& logits, std::int64_t) {
        return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    });
}

/// end_token is an id that the expected text does not have.
GenerationSettings greedy(const Ids& expected) {
    GenerationSettings s;
    s.max_tokens = static_cast<std::int64_t>(expected.size());
    s.temperature = 0;
    s.num_tokens = vocab_size;
    s.end_token = 0;
    while (std::count(expected.begin(), expected.end(), s.end_token) > 0) ++s.end_token;
    return s;
}

/// Must be the same on all ranks, because callers may rely on it.
Ids generated(const Config& config, const Topology& topology, const GenerationSettings& settings,
              const Ids& text) {
    Traffic traffic;
    const auto allocated = seeded(config, topology, traffic);
    Ids added;
    generate(*allocated->state, settings, text, [&](std::int32_t token) { added.push_back(token); });
    return added;
}

TEST(GenerationTest, GreedyTakesTheMostLikelyTokenOfTheLastContext) {
    const Config config = config_of();
    Ids long_prompt;  // longer than the context, so that the context slides
    for (std::int32_t i = 0; i < 11; ++i) long_prompt.push_back((i * 29 + 5) % 53);
    for (const Ids& text : {prompt, long_prompt})
        for (const std::int64_t num_tokens : {vocab_size, std::int64_t{20}}) {
            const Ids expected = most_likely(config, text, 12, num_tokens);
            EXPECT_GT(std::set<std::int32_t>(expected.begin(), expected.end()).size(), 3u) << "too dull";
            GenerationSettings settings = greedy(expected);
            settings.num_tokens = num_tokens;
            for_each_layout(config, [&](const Config& here, const Topology& topology) {
                EXPECT_EQ(generated(here, topology, settings, text), expected);
            });
        }
}

TEST(GenerationTest, TheEndTokenEndsAndIsNotHandedOn) {
    const Config config = config_of();
    const Ids text = most_likely(config, prompt, 6, vocab_size);
    GenerationSettings settings = greedy(text);
    settings.end_token = text[3];
    const Ids expected(text.begin(), std::find(text.begin(), text.end(), text[3]));
    for_each_layout(config, [&](const Config& here, const Topology& topology) {
        EXPECT_EQ(generated(here, topology, settings, prompt), expected);
    });
}

TEST(GenerationTest, DrawsAreAFunctionOfSeedAndPositionOnEveryLayout) {
    const Config config = config_of();
    GenerationSettings settings = greedy({});
    settings.max_tokens = 20;
    settings.temperature = 2;
    settings.end_token = vocab_size - 1;
    settings.num_tokens = vocab_size - 1;  // so that the text does not end
    for (const std::int64_t top_k : {0, 5}) {
        settings.top_k = top_k;
        std::set<Ids> texts;
        for (settings.seed = 0; settings.seed < 3; ++settings.seed) {
            const std::uint64_t key = stream_key(settings.seed, "generate");
            const Ids expected = continuation(
                config, prompt, 20, vocab_size - 1, [&](const test::Values& logits, std::int64_t i) {
                    return draw_token(logits, settings, uniform(key, static_cast<std::uint64_t>(i)));
                });
            texts.insert(expected);
            for_each_layout(config, [&](const Config& here, const Topology& topology) {
                EXPECT_EQ(generated(here, topology, settings, prompt), expected);
            });
        }
        EXPECT_EQ(texts.size(), 3u) << "seeds give texts of their own";
    }
}

TEST(GenerationTest, WithMaskedDocumentsNothingBeforeAnEndTokenCounts) {
    constexpr std::int32_t end = 52;
    const Ids one_before{7, 30, end, 3, 17}, other_before{44, 2, end, 3, 17};
    for (const bool masked : {false, true}) {
        const Config config =
            config_of({masked ? "--data.mask_documents=true" : "--data.mask_documents=false"});
        GenerationSettings settings = greedy({});
        settings.max_tokens = 3;  // the context holds everything, so positions do not change
        settings.end_token = end;
        for_each_layout(config, [&](const Config& here, const Topology& topology) {
            const Ids a = generated(here, topology, settings, one_before),
                      b = generated(here, topology, settings, other_before);
            EXPECT_EQ(a.size(), 3u);
            EXPECT_EQ(a == b, masked);
        });
    }
}

}  // namespace
}  // namespace switchyard

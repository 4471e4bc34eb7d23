// Everything is checked before the first value is written.
#include "convert/import.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "convert/stored_tensors.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "inference/inference_state.hpp"
#include "io/files/files.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/hugging_face.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "io/tokens/given_tokenizer.hpp"
#include "kernels/transfer.hpp"
#include "train/checkpoint_header.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t longest_default_sequence = 2048;

std::string compute_type(const ImportRequest& request, const SafetensorsDirectory& source,
                         const std::map<std::string, std::string>& stored) {
    if (!request.dtype.empty()) return request.dtype;
    const bool narrow = std::all_of(stored.begin(), stored.end(), [&](const auto& weight) {
        return source.entry(weight.second).dtype == "BF16";
    });
    return name_of(narrow ? DType::bf16 : DType::f32);
}

Config configuration(const ImportRequest& request, const LlamaModel& llama) {
    std::vector<std::string> settings{
        std::string("--method.name=") + method_of_whole_weights(),
        fmt::format("--data.seq_len={}", std::min(llama.max_positions, longest_default_sequence)),
        "--data.micro_batch=1", "--data.global_batch=1"};
    settings.insert(settings.end(), request.settings.begin(), request.settings.end());
    Config config = parse_config("", "", settings, method_options()).config;
    config.model = llama.model;
    resolve_auto(config);
    validate_run(config, 1);
    return config;
}

/// Warns if config.json names other special tokens than the tokenizer, as for early models. Text goes through
/// the tokenizer.
void compare_special_tokens(const std::string& directory, const SpecialTokens& said,
                            const GivenTokenizer& given) {
    const auto differs = [&](const char* key, const std::string& ids, std::int32_t token) {
        print_error(
            "switchyard import: warning: `{}` says {} = {}, but its tokenizer {} (the tokenizer is followed, "
            "as transformers does with text); correct the file if the tokenizer is wrong",
            directory, key, ids, token);
    };
    if (said.begin && given.begin_token >= 0 && *said.begin != given.begin_token)
        differs("bos_token_id", std::to_string(*said.begin), given.begin_token);
    if (!said.ends.empty() && given.end_token >= 0 &&
        std::find(said.ends.begin(), said.ends.end(), given.end_token) == said.ends.end())
        differs("eos_token_id", fmt::format("{}", fmt::join(said.ends, ", ")), given.end_token);
}

/// Identifies the directory's tokenizer and, if given, that of data.tokens; they must be the same. The begin
/// token of documents is that of the directory, because its model was trained with it.
DataIdentity identify_data(const ImportRequest& request, const Config& config) {
    DataIdentity result{"none", "", {}, {}};
    std::int64_t vocab_size = 0;
    const bool has_tokenizer = holds_tokenizer(request.directory);
    if (has_tokenizer) {
        const GivenTokenizer given = read_given_tokenizer(request.directory);
        vocab_size = Tokenizer(given.model).vocab_size();
        result = {"none", fingerprint_text(tokenizer_fingerprint(given.model)), given.begin_token,
                  given.end_token};
        compare_special_tokens(request.directory, read_special_tokens(request.directory), given);
    }
    if (!config.data.tokens.empty()) {
        const TokenFile tokens = open_token_file(config.data.tokens);
        const DataIdentity given = identity_of(tokens.info());
        require(!has_tokenizer || result.tokenizer == given.tokenizer,
                "token file `{}` was made with a different tokenizer from that of `{}` (its ids mean other "
                "words); tokenize with --tokenizer={}",
                config.data.tokens, request.directory, request.directory);
        vocab_size = tokens.info().vocab_size;
        if (has_tokenizer) {
            const std::string warning = begin_token_warning(result, request.directory, tokens);
            if (!warning.empty()) print_error("switchyard import: warning: {}", warning);
            result.tokens = given.tokens;
        } else {
            result = given;
        }
    }
    require(
        !result.tokenizer.empty(),
        "`{}` has no tokenizer.model (a checkpoint names the tokenizer that gives its ids their meaning, a "
        "SentencePiece model); put it there, or give --data.tokens=FILE, a token file made with it",
        request.directory);
    require(vocab_size <= config.model.vocab_size,
            "the tokenizer has {} tokens and the model {} (ids beyond them have no embedding); give the "
            "tokenizer of the model",
            vocab_size, config.model.vocab_size);
    return result;
}

std::string token_text(std::optional<std::int32_t> id) {
    return id.value_or(-1) < 0 ? "no token" : fmt::format("token {}", *id);
}

}  // namespace

std::string import_weights(const ImportRequest& request) {
    require(!exists_at(request.output), "`{}` exists (nothing is overwritten); give another name",
            request.output);
    require(is_folder_at(directory_of(request.output)),
            "folder `{}` does not exist (the checkpoint is written there); make it",
            directory_of(request.output));
    require(is_folder_at(request.directory),
            "`{}` is not a directory (a model is imported from the directory with its config.json); check "
            "the path",
            request.directory);
    require(!exists_at(request.directory + "/adapter_config.json"),
            "`{}` has adapter_config.json (the model computes with an adapter on top of its weights); merge "
            "it with peft's merge_and_unload, and import what that saves",
            request.directory);
    const LlamaModel llama = read_llama_config(request.directory);
    const SafetensorsDirectory source(request.directory);
    require(llama.model.num_layers <= static_cast<std::int64_t>(source.names().size()),
            "`{}` has {} tensors for {} layers (its config.json is of another model)", request.directory,
            source.names().size(), llama.model.num_layers);
    Config config = configuration(request, llama);
    const std::vector<Shard> weights = whole_weights(config.model);
    const auto stored = find_stored_tensors(request.directory, source, config.model, weights);
    config.run.dtype = compute_type(request, source, stored);
    const DataIdentity data = identify_data(request, config);

    std::int64_t values = 0;
    for (const Shard& weight : weights) values += weight.global.size();
    CheckpointWriter writer(Comm(), request.output);
    write_header(writer, {0, 0, 0, config_text(config, method_options()), config.run.dtype, data},
                 config.run.seed, Topology::imaginary(1, 1, 0));
    for (const Shard& weight : weights) {
        const std::string& name = stored.at(weight.name);
        const SafetensorsFile& file = source.file_of(name);
        const std::int64_t cols = weight.global_cols();
        writer.write("/model/" + weight.name, weight, DType::f32,
                     [&file, &name, cols](auto first, auto count, std::byte* packed) {
                         const auto values = reinterpret_cast<float*>(packed);
                         file.read_f32(name, first * cols, count * cols, values);
                         require(std::all_of(values, values + count * cols,
                                             [](float value) { return std::isfinite(value); }),
                                 "tensor {} has values that are not finite (nothing can be computed with "
                                 "it); take a model whose weights are whole",
                                 quoted(name));
                     });
    }
    writer.commit();
    return fmt::format(
        "{}: {} parameters in {} tensors, stored as f32, to be computed in {}\n  documents begin with {} and "
        "end with {}",
        request.output, values, weights.size(), config.run.dtype, token_text(data.begin_token),
        token_text(data.end_token));
}

}  // namespace switchyard

// Everything is checked before the first value is written.
#include "convert/import.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "core/error.hpp"
#include "inference/inference_state.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/hugging_face.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "kernels/transfer.hpp"
#include "train/checkpoint_header.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t longest_default_sequence = 2048;

/// Tables of angles that old files store; they follow from rope_theta.
bool follows_from_config(const std::string& name) {
    return name.ends_with(".rotary_emb.inv_freq");
}

std::string list_of(const std::vector<std::string>& names) {
    constexpr std::size_t most = 8;
    std::vector<std::string> shown;
    for (std::size_t i = 0; i < std::min(most, names.size()); ++i) shown.push_back(quoted(names[i]));
    const std::string rest = names.size() > most ? fmt::format(" and {} more", names.size() - most) : "";
    return fmt::format("{}{}", fmt::join(shown, ", "), rest);
}

std::string tensors(std::size_t count) {
    return fmt::format("{} tensor{}", count, count == 1 ? "" : "s");
}

void check_tensors(const std::string& directory, const SafetensorsDirectory& source,
                   const std::vector<Shard>& weights) {
    std::vector<std::string> missing, surplus, expected;
    for (const Shard& weight : weights) {
        expected.push_back(weight.name);
        if (!source.has(weight.name)) missing.push_back(weight.name);
    }
    std::sort(expected.begin(), expected.end());
    for (const std::string& name : source.names())
        if (!std::binary_search(expected.begin(), expected.end(), name) && !follows_from_config(name))
            surplus.push_back(name);
    const char* whole = "(the model of its config.json has exactly its own tensors)";
    require(missing.empty(), "`{}` lacks {} {}: {}", directory, tensors(missing.size()), whole,
            list_of(missing));
    require(surplus.empty(), "`{}` has {} too many {}: {}", directory, tensors(surplus.size()), whole,
            list_of(surplus));
    for (const Shard& weight : weights) {
        const SafetensorsEntry& entry = source.entry(weight.name);
        std::vector<std::int64_t> shape;
        for (int i = 0; i < weight.global.rank(); ++i) shape.push_back(weight.global[i]);
        require(entry.shape == shape,
                "`{}`: tensor {} is {}, but {} by config.json (they are of different models)",
                source.file_of(weight.name).path(), quoted(weight.name), fmt::join(entry.shape, "x"),
                weight.global.text());
        float none = 0;
        source.file_of(weight.name).read_f32(weight.name, 0, 0, &none);  // its type can be read
    }
}

std::string compute_type(const ImportRequest& request, const SafetensorsDirectory& source,
                         const std::vector<Shard>& weights) {
    if (!request.dtype.empty()) return request.dtype;
    const bool narrow = std::all_of(weights.begin(), weights.end(), [&](const Shard& weight) {
        return source.entry(weight.name).dtype == "BF16";
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

/// Of the directory's tokenizer.model, and of data.tokens where it is given; both must agree.
DataIdentity identify_data(const ImportRequest& request, const Config& config) {
    const std::string model = request.directory + "/tokenizer.model";
    DataIdentity result{"none", ""};
    std::int64_t vocab_size = 0;
    if (std::filesystem::exists(model)) {
        const std::string bytes = read_file(model);
        vocab_size = Tokenizer(bytes).vocab_size();
        result.tokenizer = fingerprint_text(tokenizer_fingerprint(bytes));
    }
    if (!config.data.tokens.empty()) {
        const TokenFile tokens(config.data.tokens);
        const DataIdentity given = identity_of(tokens.info());
        require(result.tokenizer.empty() || result.tokenizer == given.tokenizer,
                "token file `{}` was made with a different tokenizer from `{}` (its ids mean other words); "
                "tokenize with --tokenizer={}",
                config.data.tokens, model, model);
        vocab_size = tokens.info().vocab_size;
        result = given;
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

void copy_tensor(const SafetensorsFile& file, const Shard& weight, CheckpointWriter& writer) {
    Tensor values;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { values = a.take(MemoryClass::workspace, DType::f32, weight.global); });
    const std::int64_t rows = values.dim(0), cols = weight.global_cols();
    const std::int64_t step = std::max<std::int64_t>(1, (2 << 20) / cols);
    std::vector<float> block;
    for (std::int64_t row = 0; row < rows; row += step) {
        const std::int64_t count = std::min(step, rows - row);
        block.resize(static_cast<std::size_t>(count * cols));
        file.read_f32(weight.name, row * cols, count * cols, block.data());
        kernels::upload(block.data(), values.rows(row, count));
    }
    writer.write("/model/" + weight.name, weight, values);
}

}  // namespace

std::string import_weights(const ImportRequest& request) {
    require(!std::filesystem::exists(request.output),
            "`{}` exists (nothing is overwritten); give another name", request.output);
    require(
        std::filesystem::is_directory(request.directory),
        "`{}` is not a directory (a model is imported from the directory with its config.json); check the path",
        request.directory);
    const LlamaModel llama = read_llama_config(request.directory);
    const SafetensorsDirectory source(request.directory);
    require(llama.model.num_layers <= static_cast<std::int64_t>(source.names().size()),
            "`{}` has {} tensors for {} layers (its config.json is of another model)", request.directory,
            source.names().size(), llama.model.num_layers);
    Config config = configuration(request, llama);
    const std::vector<Shard> weights = whole_weights(config.model);
    check_tensors(request.directory, source, weights);
    config.run.dtype = compute_type(request, source, weights);
    const DataIdentity data = identify_data(request, config);

    std::int64_t values = 0;
    for (const Shard& weight : weights) values += weight.global.size();
    CheckpointWriter writer(Comm(), request.output, static_cast<std::uint64_t>(values) * sizeof(float));
    write_header(writer, {0, 0, 0, config_text(config, method_options()), config.run.dtype, data},
                 config.run.seed, Topology::imaginary(1, 1, 0));
    for (const Shard& weight : weights) copy_tensor(source.file_of(weight.name), weight, writer);
    writer.commit();
    return fmt::format("{}: {} parameters in {} tensors, stored as f32, to be computed in {}", request.output,
                       values, weights.size(), config.run.dtype);
}

}  // namespace switchyard

// Targets for files that are text, and for files that our own code or SentencePiece's parses.
#include <cmath>
#include <cstring>
#include <filesystem>

#include "config/settings.hpp"
#include "core/error.hpp"
#include "fuzz/target_list.hpp"
#include "io/hugging_face/hugging_face.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "io/run/run_directory.hpp"
#include "io/run/run_log.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/tokenize.hpp"
#include "methods/registry.hpp"

namespace switchyard::fuzz {
namespace {

using nlohmann::ordered_json;

// ---- configuration

/// A configuration that is accepted must be accepted again, with the same meaning, after it is written out.
void configuration(const std::string& bytes) {
    const Config config = parse_config(bytes, "fuzz.cfg", {}, method_options()).config;
    const std::string text = config_text(config, method_options());
    const std::string again =
        config_text(parse_config(text, "again.cfg", {}, method_options()).config, method_options());
    expect(text == again, "a configuration changes when it is written and read");
}

std::vector<std::string> configuration_seeds() {
    return {
        config_text(parse_config("", "", {}, method_options()).config, method_options()),
        "[model]\npreset = 60m\n[run] # a run\ndir = \"a \\\"b\\\"\"\nsteps = 12\nwall_limit = 1-02:03:04\n",
        "[data]\ntokens = x.h5\nmask_documents = true\n\n[optim]\nlr = 1e-3\nclip_norm=0\n"};
}

// ---- weights of others

/// Every value that an accepted header declares can be read.
void safetensors(const std::string& bytes) {
    const SafetensorsFile file(file_of("model.safetensors", bytes));
    for (const auto& [name, entry] : file.entries()) {
        std::vector<float> values(static_cast<std::size_t>(std::min<std::int64_t>(entry.size(), 1 << 16)));
        try {
            file.read_f32(name, entry.size() - static_cast<std::int64_t>(values.size()),
                          static_cast<std::int64_t>(values.size()), values.data());
        } catch (const UserError&) {  // a type that cannot be read
        }
    }
}

std::string safetensors_text(const std::string& header, std::size_t value_bytes) {
    const std::uint64_t length = header.size();
    std::string text(sizeof length, '\0');
    std::memcpy(text.data(), &length, sizeof length);
    return text + header + std::string(value_bytes, '\x3F');
}

std::vector<std::string> safetensors_seeds() {
    return {safetensors_text(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[24,30]}})",
                             30),
            safetensors_text(R"({"__metadata__":{"format":"pt"},"none":{"dtype":"F16","shape":[0],)"
                             R"("data_offsets":[0,0]},"x":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})",
                             8)};
}

/// The bytes as config.json, and as the index of a model in several files.
void import(const std::string& bytes) {
    file_of("config.json", bytes);
    file_of("model.safetensors.index.json", bytes);
    try {
        const ModelConfig model = read_llama_config(folder()).model;
        expect(model.num_layers >= 1 && model.hidden_size >= 1 && std::isfinite(model.rope_theta),
               "sizes of a model out of range");
    } catch (const UserError&) {
    }
    std::filesystem::remove(folder() + "/model.safetensors");
    SafetensorsDirectory{folder()};
}

std::vector<std::string> import_seeds() {
    file_of("part1", safetensors_seeds()[0]);
    ModelConfig model;
    model.vocab_size = 32, model.hidden_size = 8, model.num_heads = model.num_kv_heads = 2;
    model.ffn_size = 12, model.num_layers = 1;
    return {
        llama_config(model, {}).dump(1), R"({"weight_map":{"a":"part1","b":"part1"}})",
        R"({"model_type":"llama","vocab_size":8,"hidden_size":8,"intermediate_size":4,"num_hidden_layers":1,)"
        R"("num_attention_heads":2,"rope_scaling":{"rope_type":"default","rope_theta":5e5}})"};
}

// ---- a run's own files

/// After a resume the log has whole lines with objects only, and a second resume finds nothing to do.
void log(const std::string& bytes) {
    const std::string path = file_of("log.jsonl", bytes);
    std::filesystem::remove(folder() + "/log.superseded.jsonl");
    RunLog run_log(path);
    run_log.move_aside_beyond(5);
    const std::string text = read_file(path);
    expect(text.empty() || text.back() == '\n', "the log ends within a line");
    expect(text.find('\0') == std::string::npos, "the log has zeros");
    int lines = 0;
    const std::int64_t moved = run_log.move_aside_beyond(5, [&](const ordered_json& line) {
        expect(line.is_object(), "a line is not an object");
        ++lines;
    });
    expect(moved == 0 && read_file(path) == text, "a second look changes the log");
}

std::vector<std::string> log_seeds() {
    const std::string line = log_line({{"step", 3}, {"loss", 2.5}, {"phases", {{"forward", 0.1}}}}) + "\n";
    return {log_line({{"event", "start"}, {"lr", 0.1}}) + "\n" + line + log_line({{"step", 7}}) + "\n",
            line + std::string(200, '\0'), line + "\n\n" + line + "{\"step\": 4"};
}

void status(const std::string& bytes) {
    file_of("status.json", bytes);
    const auto found = read_run_status(folder());
    expect(!found || found->step >= 0, "a negative step");
}

std::vector<std::string> status_seeds() {
    return {R"({"outcome": "running", "reason": "", "step": 12, "time": "2026-01-02T03:04:05Z"})"};
}

// ---- tokenizers and text

std::string small_model() {
    static const std::string model = [] {
        TokenizeOptions options;
        std::string text;
        for (int i = 0; i < 400; ++i)
            text += "word" + std::to_string(i % 37) + " and more, of line " + std::to_string(i) + "\n";
        options.inputs = {file_of("sample.txt", text)};
        options.output = folder() + "/sample.h5";
        std::filesystem::remove(options.output);
        options.vocab_size = 300;
        options.validation = 0;
        options.show_progress = false;
        return tokenize(options).tokenizer_model;
    }();
    return model;
}

/// A model that loads must also encode and decode any text.
void sentencepiece(const std::string& bytes) {
    const Tokenizer tokenizer(bytes);
    const std::int64_t size = tokenizer.vocab_size();
    for (const char* text : {"word and more", " \n\t ", "\xC3\xA9\xE2\x96\x81 12", ""}) {
        const std::vector<std::int32_t> ids = tokenizer.encode(text);
        for (const std::int32_t id : ids) expect(id >= 0 && id < size, "an id outside the vocabulary");
        tokenizer.decode(ids);
    }
    tokenizer.decode({0, static_cast<std::int32_t>(size - 1)});
}

std::vector<std::string> sentencepiece_seeds() {
    return {small_model()};
}

/// The token file made from any text must verify.
void text(const std::string& bytes) {
    static const std::string model = file_of("tokenizer.model", small_model());
    const char* const separators[] = {"blank-lines", "line", "file"};
    TokenizeOptions options;
    options.inputs = {file_of("text", bytes)};
    options.output = folder() + "/text.h5";
    std::filesystem::remove(options.output);
    options.tokenizer = model;
    options.validation = 0;
    options.document_separator = separators[bytes.size() % 3];
    options.show_progress = false;
    tokenize(options);
    const std::vector<std::string> problems = verify_token_file(options.output);
    expect(problems.empty(), problems.empty() ? "" : problems[0]);
}

std::vector<std::string> text_seeds() {
    return {"word and more\n\nof line 12\nword1\n",
            "{\"text\": \"word \\u00e9 \\ud83d\\ude00\"}\n{\"text\": \"\"}\n",
            "\xEF\xBB\xBFword\r\n\r\nmore \xE2\x96\x81 \xFF\xFE\n"};
}

}  // namespace

std::vector<Target> text_targets() {
    const std::vector<std::string> json{"{",    "}",    "[",     "]",  "\"",      ":",       ",",
                                        "null", "true", "1e999", "-0", "\\ud83d", "\"step\""};
    return {
        {"configuration",
         configuration,
         configuration_seeds,
         {"[model]", "=", "#", "\"", "\\", "auto", "\n", "[run]", "steps", "preset", "\xEF\xBB\xBF"},
         10'000},
        {"safetensors", safetensors, safetensors_seeds, json, 10'000},
        {"import", import, import_seeds, json, 5'000},
        {"text",
         text,
         text_seeds,
         {"\n\n", "{\"text\": \"", "\"}", "\xEF\xBB\xBF", "PAR1", "\\ud83d", "NaN"},
         400},
        {"log", log, log_seeds, json, 5'000},
        {"status", status, status_seeds, json, 10'000},
        {"sentencepiece",
         sentencepiece,
         sentencepiece_seeds,
         {"\x0A", "\x12", "\x18", "\xE2\x96\x81", "<s>"},
         1'500},
    };
}

}  // namespace switchyard::fuzz

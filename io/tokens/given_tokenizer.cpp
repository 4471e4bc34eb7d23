// Follows transformers: tokenizer_config.json decides whether a text begins with the begin token, and which
// one it is. If it does not tell, the template of tokenizer.json counts, or else the default of the tokenizer
// class.
#include "io/tokens/given_tokenizer.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "core/error.hpp"
#include "io/files/files.hpp"
#include "io/files/strict_json.hpp"
#include "io/tokens/token_file.hpp"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr std::array model_names{"tokenizer.model", "spiece.model"};
/// Tokenizer classes of transformers that put the begin token first by default, and models that have them.
constexpr std::array beginning_classes{"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"};
constexpr std::array beginning_models{"llama", "mistral", "mixtral", "gemma", "gemma2"};

/// The JSON files beside a model; a missing file is an empty object.
class Neighbours {
  public:
    explicit Neighbours(const std::string& folder)
        : folder_(folder),
          tokenizer_(read("tokenizer_config.json")),
          special_(read("special_tokens_map.json")),
          model_(read("config.json")) {
        const auto said = tokenizer_.find("add_bos_token");
        if (said == tokenizer_.end() || said->is_null())
            template_piece_ = first_of_template(read("tokenizer.json").value("post_processor", json()));
    }

    bool begins_texts() const {
        if (const auto said = tokenizer_.find("add_bos_token");
            said != tokenizer_.end() && !said->is_null()) {
            require(said->is_boolean(), "`{}`: add_bos_token is neither true nor false; correct the file",
                    name("tokenizer_config.json"));
            return said->get<bool>();
        }
        if (!template_piece_.empty()) return true;
        const std::string of_class = text(tokenizer_, "tokenizer_class");
        if (!of_class.empty()) {
            for (const std::string known : beginning_classes)
                if (of_class == known || of_class == known + "Fast") return true;
            return false;
        }
        const std::string of_model = text(model_, "model_type");
        return std::any_of(beginning_models.begin(), beginning_models.end(),
                           [&](const char* known) { return of_model == known; });
    }
    /// The piece under `key` (bos_token or eos_token); "" if no file has it.
    std::string piece(const char* key) const {
        const std::string said = text(tokenizer_, key);
        return said.empty() ? text(special_, key) : said;
    }
    /// The piece that tokenizer.json puts before every text, if tokenizer_config.json leaves that to it; "":
    /// none.
    const std::string& template_piece() const { return template_piece_; }
    /// The file that decides begins_texts().
    std::string speaker() const {
        if (!template_piece_.empty()) return name("tokenizer.json");
        return name(tokenizer_.empty() ? "config.json" : "tokenizer_config.json");
    }
    bool any() const { return !tokenizer_.empty() || !model_.empty() || !template_piece_.empty(); }

  private:
    std::string name(const char* file) const { return folder_ + "/" + file; }
    json read(const char* file) const {
        std::error_code error;
        return std::filesystem::exists(name(file), error) ? read_json_object(name(file)) : json::object();
    }
    /// A string, or the "content" of an added token that is written as an object.
    static std::string text(const json& object, const char* key) {
        const auto value = object.find(key);
        if (value == object.end()) return "";
        if (value->is_string()) return value->get<std::string>();
        return value->is_object() ? text(*value, "content") : "";
    }

    /// `tokenizers` puts a template around each text, either alone or as one of several steps.
    static std::string first_of_template(const json& processor) {
        if (!processor.is_object()) return "";
        const auto find = [](const json& object, const char* key) {
            return object.is_object() && object.contains(key) ? object[key] : json();
        };
        for (const json& step : find(processor, "processors"))
            if (const std::string piece = first_of_template(step); !piece.empty()) return piece;
        const json parts = find(processor, "single");
        if (!parts.is_array() || parts.empty()) return "";
        return text(find(parts[0], "SpecialToken"), "id");
    }

    std::string folder_;
    json tokenizer_, special_, model_;
    std::string template_piece_;
};

Tokenizer load(const std::string& model, const std::string& path) {
    try {
        return Tokenizer(model);
    } catch (const UserError& problem) {
        fail("tokenizer `{}`: {}", path, problem.what());
    }
}

GivenTokenizer of_model_file(const std::string& path, const std::optional<std::string>& folder) {
    GivenTokenizer given{.model = read_file(path)};
    const Tokenizer tokenizer = load(given.model, path);
    given.end_token = tokenizer.end_token();
    if (!folder) return given;
    const Neighbours neighbours(*folder);
    if (!neighbours.any()) return given;
    given.said_by = neighbours.speaker();
    if (const std::string end = neighbours.piece("eos_token"); !end.empty() && tokenizer.id_of(end) >= 0)
        given.end_token = tokenizer.id_of(end);
    if (!neighbours.begins_texts()) return given;
    const std::string first = neighbours.template_piece();
    const std::string begin = first.empty() ? neighbours.piece("bos_token") : first;
    given.begin_token = begin.empty() ? tokenizer.begin_token() : tokenizer.id_of(begin);
    require(
        given.begin_token >= 0,
        "`{}`: texts begin with the token {}, which is not a piece of `{}` (its id is not known); correct "
        "bos_token, or set add_bos_token to false",
        given.said_by, begin.empty() ? "of the model" : quoted(begin), path);
    if (given.begin_token == given.end_token) given.begin_token = -1;
    return given;
}

}  // namespace

bool holds_tokenizer(const std::string& directory) {
    return std::any_of(model_names.begin(), model_names.end(),
                       [&](const char* name) { return exists_at(directory + "/" + name); });
}

GivenTokenizer read_given_tokenizer(const std::string& path) {
    if (is_token_file(path)) {
        const TokenFile file(path);
        (void)tokenizer_of(file);  // throws for other kinds of tokenizers
        const TokenFileInfo& info = file.info();
        return {info.tokenizer_model, info.begin_token, info.end_token, path};
    }
    const std::filesystem::path named(path);
    if (is_folder_at(path)) {
        for (const char* name : model_names)
            if (exists_at((named / name).string())) return of_model_file((named / name).string(), path);
        fail(
            "`{}` holds neither tokenizer.model nor spiece.model (a SentencePiece model is needed); give a "
            "folder or file that does",
            path);
    }
    require(exists_at(path),
            "there is no `{}` (it is read as the tokenizer); check --tokenizer, or give --vocab_size=N to "
            "train one",
            path);
    for (const char* name : model_names)
        if (named.filename() == name) return of_model_file(path, directory_of(path));
    return of_model_file(path, std::nullopt);
}

}  // namespace switchyard

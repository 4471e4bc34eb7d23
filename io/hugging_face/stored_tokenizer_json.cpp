// Added tokens are a list of objects with `id` and `content`. The vocabulary of the model is an object from
// text to id or, in a unigram model, an array of [text, score] by id.
#include "io/hugging_face/stored_tokenizer_json.hpp"

#include <utility>

#include "core/error.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {
namespace {

using nlohmann::json;

/// object[key]; null if `object` is not an object or lacks the key.
const json& member(const json& object, const char* key) {
    static const json null;
    return object.is_object() && object.contains(key) ? object[key] : null;
}

}  // namespace

StoredTokenizerJson::StoredTokenizerJson(std::string_view bytes, std::string file)
    : file_(std::move(file)), content_(parse_json_object(bytes, file_)) {
    require(member(content_, "model").is_object(),
            "`{}` has no `model` (it is not a tokenizer.json); give --no_tokenizer to leave it out", file_);
}

std::string StoredTokenizerJson::piece(std::int32_t id) const {
    for (const json& token : member(content_, "added_tokens"))
        if (member(token, "id") == id && member(token, "content").is_string())
            return token["content"].get<std::string>();
    const json& vocabulary = member(content_["model"], "vocab");
    if (vocabulary.is_object())
        for (const auto& [text, its_id] : vocabulary.items())
            if (its_id == id) return text;
    const auto index = static_cast<std::size_t>(id);
    if (vocabulary.is_array() && id >= 0 && index < vocabulary.size())
        if (const json& entry = vocabulary[index]; entry.is_array() && !entry.empty() && entry[0].is_string())
            return entry[0].get<std::string>();
    fail(
        "`{}` has no token with id {}, which begins or ends documents (it belongs to other tokens); give "
        "--no_tokenizer to leave it out",
        file_, id);
}

nlohmann::ordered_json StoredTokenizerJson::tokenizer_config(const LlamaFacts& facts) const {
    nlohmann::ordered_json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                  {"bos_token", piece(facts.first_token.value())},
                                  {"eos_token", piece(facts.end_token.value())},
                                  {"clean_up_tokenization_spaces", false},
                                  {"model_max_length", facts.max_positions}};
    if (const json& unknown = member(content_["model"], "unk_token"); unknown.is_string())
        config["unk_token"] = unknown.get<std::string>();
    return config;
}

}  // namespace switchyard

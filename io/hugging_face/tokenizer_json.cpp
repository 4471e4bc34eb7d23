// The parts of a tokenizer.json follow the steps of SentencePiece: rules for characters, spaces, then pieces.
// There is no pre_tokenizer, because SentencePiece splits the whole text at once.
#include "io/hugging_face/tokenizer_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/error.hpp"
#include "core/utf8.hpp"
#include "io/hugging_face/character_map.hpp"
#include "io/hugging_face/sentencepiece_model.hpp"

namespace switchyard {
namespace {

using nlohmann::json;
using Kind = SentencePieceModel::Kind;
using Algorithm = SentencePieceModel::Algorithm;
using Ids = std::unordered_map<std::string, std::size_t>;

constexpr const char* space_mark = "\u2581";
/// Marks put between characters while rules are applied. They are unassigned and control characters by
/// Unicode's default, so they take no part in clusters and composition.
constexpr const char *never_joined = "\uFFF0", *between = "\uFFF1";
/// Replaces a character that is not a piece. As it is not a character, it is never a piece itself.
constexpr const char* unknown_character = "\uFFFE";
/// Score of pieces that no text may become, in a model that chooses the highest sum.
constexpr double never = -1000;

json replace_text(const std::string& text, const std::string& by) {
    return {{"type", "Replace"}, {"pattern", {{"String", text}}}, {"content", by}};
}
json replace_expression(const std::string& expression, const std::string& by) {
    return {{"type", "Replace"}, {"pattern", {{"Regex", expression}}}, {"content", by}};
}

std::string base64(const std::string& bytes) {
    constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        std::uint32_t group = 0;
        for (std::size_t k = 0; k < 3; ++k)
            group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
        for (std::size_t k = 0; k < 4; ++k) text += k <= count ? digits[group >> (18 - 6 * k) & 63] : '=';
    }
    return text;
}

class Writer {
  public:
    Writer(const std::string& serialized, std::int32_t begin_token)
        : model_(read_sentencepiece_model(serialized)), begin_token_(begin_token) {
        for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
            const auto& piece = model_.pieces[id];
            (void)utf32_of(piece.text);
            if (piece.kind == Kind::normal) normal_[piece.text] = id;
            if (piece.kind == Kind::unknown) unknown_ = id;
        }
    }

    TokenizerJson write() {
        if (model_.algorithm != Algorithm::unigram && model_.algorithm != Algorithm::byte_pair)
            return {json(), {"every text: tokenizers has no model of words or characters"}};
        find_piece_differences();
        json normalizers = json::array();
        add_rules(normalizers);
        add_spaces(normalizers);
        const json pieces =
            model_.algorithm == Algorithm::byte_pair ? byte_pair_model() : unigram_model(normalizers);
        json content{{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens()},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", nullptr},
                     {"post_processor", post_processor()},
                     {"decoder", decoder()},
                     {"model", pieces}};
        if (!normalizers.empty())
            content["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
        return {std::move(content), std::move(differences_)};
    }

  private:
    void find_piece_differences();
    void add_rules(json& normalizers);
    void add_spaces(json& normalizers) const;
    std::optional<json> dummy_space() const;
    json byte_pair_model() const;
    json unigram_model(json& normalizers);
    json added_tokens() const;
    json post_processor() const;
    json decoder() const;
    const std::string& unknown_piece() const { return model_.pieces.at(unknown_).text; }

    SentencePieceModel model_;
    std::int32_t begin_token_;
    Ids normal_;  // pieces that text can become
    std::size_t unknown_ = 0;
    std::vector<std::string> differences_;
};

void Writer::find_piece_differences() {
    std::int64_t unused = 0, alone = 0;
    std::vector<std::string> own;
    for (const auto& piece : model_.pieces) {
        unused += piece.kind == Kind::unused;
        if (piece.kind == Kind::user_defined) own.push_back(piece.text);
        if (piece.kind != Kind::normal) continue;
        const std::u32string characters = utf32_of(piece.text);
        alone += characters.size() > 1 && std::any_of(characters.begin(), characters.end(), [&](char32_t c) {
                     return !normal_.contains(utf8_of(c));
                 });
    }
    if (unused > 0)
        differences_.push_back(
            fmt::format("texts with one of {} unused pieces: tokenizers cannot split them again", unused));
    if (alone > 0)
        differences_.push_back(fmt::format(
            "texts with one of {} pieces that have characters without a piece of their own: tokenizers "
            "cannot build them",
            alone));
    const bool byte_pair = model_.algorithm == Algorithm::byte_pair;
    if (byte_pair && !own.empty() && (model_.dummy_space || model_.strips_spaces))
        differences_.push_back(
            fmt::format("texts with one of {} user-defined pieces such as {}: tokenizers treats what "
                        "follows as separate text, which begins with a space",
                        own.size(), own[0]));
}

/// `tokenizers` applies compiled rules to whole clusters of characters, by their shortest left side. With a
/// mark between all characters, each character is a cluster. What rules for several characters would have
/// composed is composed by NFC; other marks keep NFC from composing more than the rules do.
void Writer::add_rules(json& normalizers) {
    if (model_.character_map.empty()) return;
    const CharacterMap rules = read_character_map(model_.character_map);
    const bool several =
        std::any_of(rules.begin(), rules.end(), [](const auto& r) { return r.first.size() > 1; });
    const bool composes = several && composes_characters(rules);
    if (model_.dummy_space && !model_.strips_spaces) normalizers.push_back(*dummy_space());
    if (composes) normalizers.push_back(replace_expression(places_not_joined(rules), never_joined));
    normalizers.push_back(replace_expression("(?<=[\\s\\S])(?=[\\s\\S])", between));
    normalizers.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(model_.character_map)}});
    normalizers.push_back(replace_text(between, ""));
    if (composes) {
        normalizers.push_back({{"type", "NFC"}});
        normalizers.push_back(replace_text(never_joined, ""));
    }
    differences_.push_back(
        "texts with U+FFF0 or U+FFF1: tokenizer.json needs these two unassigned characters itself");
    if (composes)
        differences_.push_back(
            "texts in scripts younger than the Unicode tables of the loading library: it composes their "
            "marks by these");
    if (composes && rules.contains(U"\u0345"))
        differences_.push_back(
            "texts with U+0345 after a Greek letter: the model folds its case, and tokenizers has no rule "
            "for both at once");
    if (several && !composes)
        differences_.push_back(
            fmt::format("texts with several characters that the model's rules ({}) replace together: "
                        "tokenizers replaces them one by one",
                        model_.rules));
}

std::optional<json> Writer::dummy_space() const {
    if (!model_.dummy_space) return std::nullopt;
    const std::string mark = model_.escapes_spaces ? space_mark : " ";
    if (model_.space_behind_word) return replace_expression("(?<=[\\s\\S])\\z", mark);
    return json{{"type", "Prepend"}, {"prepend", mark}};
}

void Writer::add_spaces(json& normalizers) const {
    const bool early = !model_.character_map.empty() && !model_.strips_spaces;
    if (model_.strips_spaces) {
        normalizers.push_back(replace_expression(fmt::format("\\A +|[ {}]+\\z", space_mark), ""));
        normalizers.push_back(replace_expression(" {2,}", " "));
    }
    if (const auto dummy = dummy_space(); dummy && !early) normalizers.push_back(*dummy);
    if (model_.escapes_spaces) normalizers.push_back(replace_text(" ", space_mark));
}

/// Each way to build a piece from two others is a merge. Merges come in the order of the score of the
/// resulting piece.
json Writer::byte_pair_model() const {
    struct Merge {
        float score;
        std::size_t left, right;
    };
    std::vector<Merge> merges;
    for (const auto& [text, id] : normal_)
        for (std::size_t cut = 1; cut < text.size(); ++cut) {
            const auto left = normal_.find(text.substr(0, cut)), right = normal_.find(text.substr(cut));
            if (left != normal_.end() && right != normal_.end())
                merges.push_back({model_.pieces[id].score, left->second, right->second});
        }
    std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
        return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
    });
    json vocabulary = json::object(), pairs = json::array();
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) vocabulary[model_.pieces[id].text] = id;
    for (const Merge& merge : merges) {
        const std::string &left = model_.pieces[merge.left].text, &right = model_.pieces[merge.right].text;
        // tokenizers before 0.20 write the two parts joined by a space, and newer versions read that too.
        pairs.push_back(model_.escapes_spaces ? json(left + " " + right) : json{left, right});
    }
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown_piece()},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", model_.byte_fallback},
            {"ignore_merges", false},
            {"vocab", std::move(vocabulary)},
            {"merges", std::move(pairs)}};
}

/// In this model every piece can become text, even control pieces and bytes; their score makes them the last
/// choice. A piece with a character that has no piece of its own would still be preferred to the unknown
/// piece, so that character is replaced.
json Writer::unigram_model(json& normalizers) {
    json vocabulary = json::array();
    std::set<char32_t> taken_away;
    float highest = -std::numeric_limits<float>::infinity();
    std::int64_t spelled = 0;
    for (const auto& [text, id] : normal_) highest = std::max(highest, model_.pieces[id].score);
    for (const auto& piece : model_.pieces) {
        double score = never;
        if (piece.kind == Kind::normal) score = piece.score;
        if (piece.kind == Kind::user_defined)  // always chosen where it fits, as in SentencePiece
            score = static_cast<double>(piece.text.size()) * highest - 0.1;
        vocabulary.push_back(json{piece.text, score});
        if (piece.kind != Kind::control && piece.kind != Kind::unknown && piece.kind != Kind::byte) continue;
        const std::u32string characters = utf32_of(piece.text);
        const auto first = std::find_if(characters.begin(), characters.end(),
                                        [&](char32_t c) { return !normal_.contains(utf8_of(c)); });
        if (first == characters.end()) continue;
        ++spelled;
        if (!model_.byte_fallback) taken_away.insert(*first);
    }
    for (const char32_t c : taken_away) normalizers.push_back(replace_text(utf8_of(c), unknown_character));
    if (model_.byte_fallback && spelled > 0)
        differences_.push_back(
            fmt::format("texts that spell one of {} pieces such as {}: tokenizers takes them for it", spelled,
                        unknown_piece()));
    return {{"type", "Unigram"},
            {"unk_id", unknown_},
            {"byte_fallback", model_.byte_fallback},
            {"vocab", std::move(vocabulary)}};
}

json Writer::added_tokens() const {
    json tokens = json::array();
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
        const auto& piece = model_.pieces[id];
        const bool special = piece.kind == Kind::control || piece.kind == Kind::unknown;
        // A unigram model has user-defined pieces among its pieces. Pieces with a space would never be found
        // after spaces are replaced.
        const bool whole = piece.kind == Kind::user_defined && model_.algorithm == Algorithm::byte_pair &&
                           piece.text.find(' ') == std::string::npos;
        if (special || whole)
            tokens.push_back({{"id", id},
                              {"content", piece.text},
                              {"single_word", false},
                              {"lstrip", false},
                              {"rstrip", false},
                              {"normalized", false},
                              {"special", special}});
    }
    return tokens;
}

json Writer::post_processor() const {
    if (begin_token_ < 0) return nullptr;
    const std::string& piece = model_.pieces.at(static_cast<std::size_t>(begin_token_)).text;
    const auto begin = [&](int type) { return json{{"SpecialToken", {{"id", piece}, {"type_id", type}}}}; };
    const auto text = [](const char* name, int type) {
        return json{{"Sequence", {{"id", name}, {"type_id", type}}}};
    };
    return {
        {"type", "TemplateProcessing"},
        {"single", json::array({begin(0), text("A", 0)})},
        {"pair", json::array({begin(0), text("A", 0), begin(1), text("B", 1)})},
        {"special_tokens",
         {{piece, {{"id", piece}, {"ids", json::array({begin_token_})}, {"tokens", json::array({piece})}}}}}};
}

json Writer::decoder() const {
    json steps = json::array();
    if (model_.escapes_spaces) steps.push_back(replace_text(space_mark, " "));
    steps.push_back({{"type", "ByteFallback"}});
    steps.push_back({{"type", "Fuse"}});
    if (model_.dummy_space) {
        const int front = model_.space_behind_word ? 0 : 1;
        steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", front}, {"stop", 1 - front}});
    }
    return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

}  // namespace

TokenizerJson tokenizer_json(const std::string& sentencepiece_model, std::int32_t begin_token) {
    return Writer(sentencepiece_model, begin_token).write();
}

}  // namespace switchyard

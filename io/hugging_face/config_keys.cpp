// Keys that were asked for are known. All others are refused in one message, so that a file must be corrected
// only once.
#include "io/hugging_face/config_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {

using nlohmann::json;

bool ConfigKeys::has(const char* key) const {
    known_.insert(key);
    return object_.contains(key) && !object_[key].is_null();
}

const json& ConfigKeys::value(const char* key) const {
    return object_[key];
}

ConfigKeys ConfigKeys::object(const char* key) const {
    require(has(key) && object_[key].is_object(),
            "{}: {} = {} is not an object (its keys say how positions are rotated); correct the file", where_,
            key, shown(key));
    return {object_[key], where_ + ", " + key};
}

std::int64_t ConfigKeys::size(const char* key, std::optional<std::int64_t> otherwise) const {
    if (!has(key) && otherwise) return *otherwise;
    require(has(key), "{} lacks {} (the model's sizes come from it); download it again", where_, key);
    const bool in_range = object_[key].is_number_unsigned() && object_[key].get<std::uint64_t>() >= 1 &&
                          object_[key].get<std::uint64_t>() <= 1u << 30;
    require(in_range,
            "{}: {} = {} is not a size (a whole number from 1 to 2^30 is expected); correct the file", where_,
            key, shown(key));
    return object_[key].get<std::int64_t>();
}

std::optional<double> ConfigKeys::positive(const char* key) const {
    if (!has(key)) return std::nullopt;
    const double number = object_[key].is_number() ? object_[key].get<double>() : 0;
    require(std::isfinite(number) && number > 0, "{}: {} = {} is not a positive number; correct the file",
            where_, key, shown(key));
    return number;
}

bool ConfigKeys::flag(const char* key) const {
    if (!has(key)) return false;
    require(object_[key].is_boolean(), "{}: {} = {} is neither true nor false; correct the file", where_, key,
            shown(key));
    return object_[key].get<bool>();
}

void ConfigKeys::only(const char* key, const std::vector<json>& values, const char* why) const {
    if (!has(key)) return;
    std::vector<std::string> texts;
    for (const json& value : values) {
        if (object_[key] == value) return;
        texts.push_back(value.dump());
    }
    fail("{}: {} = {} is not supported ({}); only {} can be imported", where_, key, shown(key), why,
         fmt::join(texts, " or "));
}

void ConfigKeys::only_near(const char* key, double expected, const char* why) const {
    if (!has(key)) return;
    constexpr double rounding = 1e-6;  // relative error of a number that was once an f32
    const double number = object_[key].is_number() ? object_[key].get<double>() : NAN;
    require(std::abs(number - expected) <= rounding * std::abs(expected),
            "{}: {} = {} is not supported ({}); only {} can be imported", where_, key, shown(key), why,
            expected);
}

void ConfigKeys::refuse_others() const {
    std::vector<std::string> others;
    for (const auto& [key, value] : object_.items())
        if (!value.is_null() && !known_.contains(key))
            others.push_back(fmt::format("{} = {}", quoted(key), shown(key)));
    if (others.empty()) return;
    constexpr std::size_t most = 8;
    const std::size_t count = others.size();
    if (count > most) others.resize(most);
    fail(
        "{}: {}{} {} not known to this program (a key that is skipped may change what the model computes); "
        "remove {} from the file if the model computes the same without, otherwise it cannot be imported",
        where_, fmt::join(others, ", "), count > most ? fmt::format(" and {} more", count - most) : "",
        count == 1 ? "is" : "are", count == 1 ? "it" : "them");
}

std::string ConfigKeys::shown(const std::string& key) const {
    if (!object_.contains(key) || object_[key].is_null()) return "nothing";
    const std::string text = object_[key].dump(-1, ' ', true, json::error_handler_t::replace);
    return text.size() > 120 ? text.substr(0, 120) + "..." : text;
}

}  // namespace switchyard

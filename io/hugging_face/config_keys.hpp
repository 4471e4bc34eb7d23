// Keys of a configuration that someone else wrote. The rule: a key is used, known to be harmless, or refused
// by name; a reader ends with refuse_others(), so that nothing is skipped.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace switchyard {

/// One JSON object, its keys with their checks. Null counts as absent. Refers to the object.
class ConfigKeys {
  public:
    /// `where`: file, and path of the object in it, for messages.
    ConfigKeys(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const;
    /// Value of a key that is there.
    const nlohmann::json& value(const char* key) const;
    ConfigKeys object(const char* key) const;
    /// 1 to 2^30; a key that is absent without `otherwise` is an error.
    std::int64_t size(const char* key, std::optional<std::int64_t> otherwise = std::nullopt) const;
    std::optional<double> positive(const char* key) const;
    bool flag(const char* key) const;
    /// The key is absent or has one of these values; numbers are compared as numbers.
    void only(const char* key, const std::vector<nlohmann::json>& values, const char* why) const;
    /// The key is absent or is a number that differs from `expected` by rounding only.
    void only_near(const char* key, double expected, const char* why) const;
    void ignore(const char* key) const { known_.insert(key); }
    /// Throws UserError that names all keys that no call above has named.
    void refuse_others() const;

    const std::string& where() const { return where_; }
    std::string shown(const std::string& key) const;

  private:
    const nlohmann::json& object_;
    std::string where_;
    mutable std::set<std::string> known_;
};

}  // namespace switchyard

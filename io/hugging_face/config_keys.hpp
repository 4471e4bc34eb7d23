// The keys of a configuration of unknown origin. Every key is used, known to be harmless, or refused by name:
// a reader ends with refuse_others(), so that no key is ignored silently.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace switchyard {

/// The keys of one JSON object and checks of their values. Null counts as absent. Keeps a reference to the
/// object.
class ConfigKeys {
  public:
    /// `where`: the file and the path of the object in it, for messages.
    ConfigKeys(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const;
    /// The value of a key that exists.
    const nlohmann::json& value(const char* key) const;
    ConfigKeys object(const char* key) const;
    /// A size from 1 to 2^30. A missing key is an error unless `otherwise` is given.
    std::int64_t size(const char* key, std::optional<std::int64_t> otherwise = std::nullopt) const;
    std::optional<double> positive(const char* key) const;
    bool flag(const char* key) const;
    /// Requires that the key is absent or has one of these values; numbers are compared as numbers.
    void only(const char* key, const std::vector<nlohmann::json>& values, const char* why) const;
    /// Requires that the key is absent or is a number that differs from `expected` by rounding only.
    void only_near(const char* key, double expected, const char* why) const;
    void ignore(const char* key) const { known_.insert(key); }
    /// Throws UserError naming all keys that no other call has named.
    void refuse_others() const;

    const std::string& where() const { return where_; }
    std::string shown(const std::string& key) const;

  private:
    const nlohmann::json& object_;
    std::string where_;
    mutable std::set<std::string> known_;
};

}  // namespace switchyard

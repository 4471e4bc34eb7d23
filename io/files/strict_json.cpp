// nlohmann's parser checks syntax and UTF-8. Its callback sees each key before a second one replaces the
// first.
#include "io/files/strict_json.hpp"

#include <set>
#include <vector>

#include "core/error.hpp"
#include "io/files/files.hpp"

namespace switchyard {

using nlohmann::json;

nlohmann::json parse_json_object(std::string_view text, const std::string& file) {
    constexpr int max_depth = 32;
    std::vector<std::set<std::string>> open_objects;
    const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
        require(depth <= max_depth,
                "`{}` nests its JSON more than {} deep (no file of this kind is written that way); download "
                "it again",
                file, max_depth);
        if (event == json::parse_event_t::object_start) open_objects.emplace_back();
        if (event == json::parse_event_t::object_end) open_objects.pop_back();
        if (event == json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            require(open_objects.back().insert(key).second,
                    "`{}` has {} twice (only one of them can be meant); download it again", file,
                    quoted(key));
        }
        return true;
    };
    json result;
    try {
        result = json::parse(text, check);
    } catch (const json::exception& error) {
        fail("`{}` is damaged: its JSON cannot be read ({}); download it again", file, error.what());
    }
    require(result.is_object(), "`{}` is damaged: its JSON is not an object but {}; download it again", file,
            result.type_name());
    return result;
}

nlohmann::json read_json_object(const std::string& path) {
    return parse_json_object(read_file(path), path);
}

std::string quoted(const std::string& name) {
    constexpr std::size_t longest = 120;
    const std::string shown = name.size() > longest ? name.substr(0, longest) + "..." : name;
    return json(shown).dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace switchyard

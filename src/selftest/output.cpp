// The result as a table and as JSON. docs/selftest.md describes the latter; a test compares both.
#include <fmt/format.h>

#include <algorithm>

#include "config/settings.hpp"
#include "core/units.hpp"
#include "core/version.hpp"
#include "selftest/selftest.hpp"

namespace switchyard::selftest {

using nlohmann::ordered_json;

namespace {

constexpr const char* sections[] = {"surroundings", "kernels",           "products",    "memory",
                                    "attention",    "attention_kernels", "collectives", "files"};

const char* text_of(Verdict verdict) {
    return verdict == Verdict::failed ? "FAILED" : name_of(verdict);
}

}  // namespace

ordered_json json_of(const Config& config, const Result& result) {
    ordered_json json;
    json["schema_version"] = schema_version;
    json["program"] = {{"version", version().number}, {"revision", version().revision}};
    json["verdict"] = name_of(result.verdict());
    json["seconds"] = result.seconds;
    const ordered_json& found = result.environment;
    json["machine"] = {{"num_ranks", found["num_ranks"]},
                       {"dp", found["dp"]},
                       {"tp", found["tp"]},
                       {"num_threads", found["num_threads"]},
                       {"threads_per_core", found["threads_per_core"]},
                       {"cpu", found["cpu"]},
                       {"mpi", found["mpi"]},
                       {"products", found["products"]},
                       {"ranks", found["ranks"]},
                       {"variables", found["variables"]}};
    json["model"] = {{"preset", config.model.preset},
                     {"hidden_size", config.model.hidden_size},
                     {"ffn_size", config.model.ffn_size},
                     {"num_heads", config.model.num_heads},
                     {"num_kv_heads", config.model.num_kv_heads},
                     {"vocab_size", config.model.vocab_size},
                     {"seq_len", config.data.seq_len},
                     {"micro_batch", config.data.micro_batch},
                     {"method", config.method.name},
                     {"dtype", config.run.dtype}};
    for (const char* section : sections) {
        json[section] = ordered_json::array();
        for (const Line& line : result.lines) {
            if (line.section != section) continue;
            ordered_json object = {
                {"name", line.name}, {"verdict", name_of(line.verdict)}, {"advice", line.advice}};
            if (!line.numbers.is_null()) object.update(line.numbers);
            json[section].push_back(object);
        }
    }
    return json;
}

std::string table_of(const Result& result) {
    std::size_t width = 0;
    for (const Line& line : result.lines)
        width = std::max(width, std::min<std::size_t>(60, line.name.size()));
    std::string text;
    for (const char* section : sections) {
        bool first = true;
        for (const Line& line : result.lines) {
            if (line.section != section) continue;
            if (std::exchange(first, false)) text += fmt::format("{}{}\n", text.empty() ? "" : "\n", section);
            text +=
                fmt::format("  {:<6}  {:<{}}  {}\n", text_of(line.verdict), line.name, width, line.result);
            if (!line.advice.empty()) text += fmt::format("          -> {}\n", line.advice);
        }
    }
    const int failed = result.count(Verdict::failed), slow = result.count(Verdict::slow);
    return text + fmt::format("\nself-test: {} lines, {} failed, {} slow, {}\n", result.lines.size(), failed,
                              slow, duration_text(result.seconds));
}

}  // namespace switchyard::selftest

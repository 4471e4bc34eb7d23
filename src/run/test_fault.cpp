// The variable is parsed once, and each rank keeps only its own faults.
#include "run/test_fault.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <string_view>
#include <thread>

#include "config/value_rule.hpp"
#include "core/error.hpp"
#include "core/first_exception.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "run/stop_requests.hpp"

namespace switchyard {

TestFault::TestFault(int rank) {
    const char* variable = std::getenv("SWITCHYARD_TEST_FAULT");
    if (!variable) return;
    const std::string all = variable;
    for (std::size_t begin = 0; begin <= all.size();) {
        const std::size_t end = std::min(all.find(',', begin), all.size());
        const std::string text = all.substr(begin, end - begin);
        begin = end + 1;
        const std::size_t first = text.find(':'), second = text.find(':', first + 1);
        std::int64_t struck = -1, step = -1;
        const bool parsed = second != std::string::npos && read_number(text.substr(0, first), struck) &&
                            read_number(text.substr(first + 1, second - first - 1), step);
        const std::string kind = parsed ? text.substr(second + 1) : "";
        constexpr std::string_view kinds[] = {"throw", "kernel", "hang", "nan", "wait", "flip", "hold"};
        require(
            std::find(std::begin(kinds), std::end(kinds), kind) != std::end(kinds),
            "SWITCHYARD_TEST_FAULT = '{}' is not rank:updates:KIND with throw, kernel, hang, nan, wait, flip "
            "or hold (it is for tests); unset it",
            text);
        if (struck == rank || struck == -1) faults_.push_back({kind, step});
    }
}

bool TestFault::asks_for(std::string_view kind, std::int64_t step) const {
    return std::any_of(faults_.begin(), faults_.end(),
                       [&](const Fault& fault) { return fault.step == step && fault.kind == kind; });
}

void TestFault::strike(std::int64_t step, Transformer& model) const {
    if (asks_for("throw", step))
        fail("this rank fails alone before step {} (SWITCHYARD_TEST_FAULT asks for it); unset the variable",
             step + 1);
    if (asks_for("kernel", step))
        plant_failure(
            fmt::format("a kernel fails on one thread in step {} (SWITCHYARD_TEST_FAULT asks for it); unset "
                        "the variable",
                        step + 1));
    if (asks_for("nan", step))
        kernels::fill(model.parameters().back()->value, std::numeric_limits<double>::quiet_NaN());
    while (asks_for("wait", step) && !signal_noted())
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    while (asks_for("hang", step)) std::this_thread::sleep_for(std::chrono::seconds(1));
}

void TestFault::flip(std::int64_t step, Transformer& model) const {
    if (!asks_for("flip", step)) return;
    Tensor victim = model.parameters().back()->value;
    const auto linears = model.linears();
    const auto frozen =
        std::find_if(linears.begin(), linears.end(), [](const Linear* l) { return l->frozen(); });
    if (frozen != linears.end()) {
        const kernels::FrozenWeight& words = (*frozen)->base().words;
        victim = words.lo.empty() ? words.hi : words.lo;
    }
    std::vector<std::byte> bytes(victim.bytes());
    kernels::download(victim, bytes.data());
    bytes[0] ^= std::byte{1};
    kernels::upload(bytes.data(), victim);
}

}  // namespace switchyard

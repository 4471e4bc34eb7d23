// Faults are parsed once and strike at their step.
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
    const std::string text = variable;
    const std::size_t first = text.find(':'), second = text.find(':', first + 1);
    std::int64_t struck = -1, step = -1;
    const bool parsed = second != std::string::npos && read_number(text.substr(0, first), struck) &&
                        read_number(text.substr(first + 1, second - first - 1), step);
    kind_ = parsed ? text.substr(second + 1) : "";
    constexpr std::string_view kinds[] = {"throw", "kernel", "hang", "nan", "wait", "flip", "hold"};
    require(std::find(std::begin(kinds), std::end(kinds), kind_) != std::end(kinds),
            "SWITCHYARD_TEST_FAULT = '{}' is not rank:updates:KIND with throw, kernel, hang, nan, wait, flip "
            "or hold "
            "(it is for tests); unset it",
            text);
    if (struck == rank || struck == -1) step_ = step;
}

void TestFault::strike(std::int64_t step, Transformer& model) const {
    if (step != step_) return;
    if (kind_ == "throw")
        fail("this rank fails alone before step {} (SWITCHYARD_TEST_FAULT asks for it); unset the variable",
             step + 1);
    if (kind_ == "kernel")
        plant_failure(
            fmt::format("a kernel fails on one thread in step {} (SWITCHYARD_TEST_FAULT asks for it); unset "
                        "the variable",
                        step + 1));
    if (kind_ == "nan")
        kernels::fill(model.parameters().back()->value, std::numeric_limits<double>::quiet_NaN());
    while (kind_ == "wait" && !signal_noted()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    while (kind_ == "hang") std::this_thread::sleep_for(std::chrono::seconds(1));
}

void TestFault::flip(std::int64_t step, Transformer& model) const {
    if (step != step_ || kind_ != "flip") return;
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

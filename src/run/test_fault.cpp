// Text in, deed out.
#include "run/test_fault.hpp"

#include <chrono>
#include <cstdlib>
#include <limits>
#include <thread>

#include "config/value_rule.hpp"
#include "core/error.hpp"
#include "core/first_exception.hpp"
#include "kernels/elementwise.hpp"
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
    require(kind_ == "throw" || kind_ == "hang" || kind_ == "nan" || kind_ == "wait" || kind_ == "kernel",
            "SWITCHYARD_TEST_FAULT = '{}' is not rank:updates:KIND with throw, kernel, hang, nan or wait (it "
            "is for tests); unset it",
            text);
    if (struck == rank || struck == -1) step_ = step;
}

void TestFault::strike(std::int64_t step, Transformer& model) const {
    if (step != step_) return;
    if (kind_ == "throw")
        fail("this rank fails alone before step {} (SWITCHYARD_TEST_FAULT asks for it) unset the variable",
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

}  // namespace switchyard

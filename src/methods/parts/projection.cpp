// Shapes and splits alone decide, so that every rank has the same answer.
#include "methods/parts/projection.hpp"

namespace switchyard {

Projected projected_side(const std::string& rule, const Linear& linear) {
    if (rule == "local") return linear.split() == Split::column ? Projected::in : Projected::out;
    const std::int64_t m = linear.out().size, n = linear.in().size;
    return m > n || (m == n && rule == "std") ? Projected::in : Projected::out;
}

bool cut_over_tp(Projected side, const Linear& linear) {
    return (linear.split() == Split::column) == (side == Projected::out);
}

MethodOption projection_option() {
    return {.key = "projection",
            .type = MethodOption::Type::text,
            .default_value = "local",
            .help = "projected: what tp does not cut, or the smaller dimension",
            .choices = {"local", "std", "paper"}};
}

}  // namespace switchyard

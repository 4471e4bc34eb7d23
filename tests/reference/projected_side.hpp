// GaLore (Zhao et al. 2024, arXiv 2403.03507, algorithm 2, and galore_projector.py); APOLLO takes the same sides.
#pragma once

#include <string>

namespace switchyard::reference {

/// Which dimension is projected: the published rules, or by the names of the linears that tp cuts along their
/// output.
inline bool projects_inputs(const std::string& rule, const std::string& name, int m, int n) {
    if (rule == "std") return m >= n;
    if (rule == "paper") return m > n;
    return !name.ends_with("o_proj.weight") && !name.ends_with("down_proj.weight");
}

}  // namespace switchyard::reference

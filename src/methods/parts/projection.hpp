// Which dimension of a gradient is projected: one rule for all methods that do.
#pragma once

#include <string>

#include "config/option_table.hpp"
#include "model/linear.hpp"

namespace switchyard {

enum class Projected { in, out };

/// local: what tp does not cut, so that the projected gradient needs no sum over tp. std, paper: the smaller
/// dimension; of a square matrix the input (galore_projector.py of GaLore's authors) or the output (algorithm
/// 2 of their paper, arXiv 2403.03507).
Projected projected_side(const std::string& rule, const Linear&);

/// True if tp cuts that dimension of the linear.
bool cut_over_tp(Projected, const Linear&);

MethodOption projection_option();

}  // namespace switchyard

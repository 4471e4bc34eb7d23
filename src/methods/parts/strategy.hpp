// Strategy: in which order the products of x, W, A and B are formed (RunLoRA, Cherniuk et al. 2023, arXiv
// 2312.03415). All give the same function and gradients; they differ in operations and memory.
#pragma once

#include <span>

#include "model/linear.hpp"

namespace switchyard {

/// Pairs of a forward and a backward pass, by the paper's names. What is constant within a step is formed
/// once a step.
///   unmerged: x W' + s (x A') B' (forward1); dA and dB from s dY B and x A' (backward1).
///   merged: products use a copy of W + s B A (forward2); dA and dB as above (backward5).
///   weight_gradient: as merged, and dA = s B' Q, dB = s Q A' from Q = dY' x, which is summed over the
///     micro-batches of a step (backward4).
/// Every other pair has more operations than one of these, whatever the shapes: where Q pays merging does,
/// and where the copy exists no product with A and B alone is cheaper.
enum class Strategy { unmerged, merged, weight_gradient };

/// The strategy of linears that share their products: method.strategy or, where that is `auto` or the method
/// has no such key, merged if merging_pays(), else unmerged. A function of shapes alone.
Strategy strategy_of(const ModelContext&, std::span<const Linear>);

/// True if merging, 2 m n r operations for each linear of a group, costs less than it saves, 2 r (m + n) t
/// each for the t tokens of a step.
bool merging_pays(std::span<const Linear>, std::int64_t tokens_per_step);

/// The operations of a linear (m, n) with a pair of low rank r. `replicas`: the data-parallel ranks, each of
/// which forms dA and dB from its own Q.
Cost cost_of(Strategy, double m, double n, double r, double replicas);

/// Under Strategy::merged.
Cost cost_of_merged(const Linear&, std::int64_t low_rank);

}  // namespace switchyard

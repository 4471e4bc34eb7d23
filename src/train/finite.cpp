// One sum of squares per tensor shows whether all its values are finite.
#include "train/finite.hpp"

#include <algorithm>

#include "comm/collectives.hpp"
#include "kernels/reductions.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {

std::string first_bad_weight(TrainState& s) {
    std::vector<std::pair<std::string, Tensor>> weights;
    for (const Parameter* p : s.model.parameters()) weights.emplace_back(p->shard.name, p->value);
    for (const Linear* linear : s.model.linears())
        if (linear->frozen()) weights.emplace_back(linear->shard().name, linear->base().words.hi);
    const Tensor squares = s.optimizer.squared_norm();  // free to use, because the step is over
    const auto bad = std::find_if(weights.begin(), weights.end(), [&](const auto& weight) {
        kernels::squared_norm(weight.second, squares);
        double sum = 0;
        kernels::download(squares, &sum);
        return !std::isfinite(sum);
    });
    const auto first = static_cast<std::size_t>(
        all_reduce_min(s.context.topology.world, static_cast<double>(bad - weights.begin())));
    return first < weights.size() ? weights[first].first : "";
}

}  // namespace switchyard

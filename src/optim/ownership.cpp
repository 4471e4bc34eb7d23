// Blocks of rows have ceil(rows / ranks) rows, except the last; slots follow the homes of their candidates.
#include "optim/ownership.hpp"

#include <cmath>
#include <numbers>
#include <numeric>

namespace switchyard {

const Comm& owner_group(const Topology& topology, TpGradient tp_gradient) {
    return tp_gradient == TpGradient::partial && topology.tp_size() > 1 ? topology.world : topology.dp;
}

RowOwners block_owners(const Comm& group, std::int64_t rows) {
    RowOwners owners{&group, std::vector<int>(rows)};
    const std::int64_t block = (rows + group.size() - 1) / group.size();
    for (std::int64_t row = 0; row < rows; ++row) owners.owner[row] = static_cast<int>(row / block);
    return owners;
}

std::int64_t stagger_step(int ranks) {
    const std::int64_t nearest = std::llround(ranks / std::numbers::phi);
    for (std::int64_t away = 0;; ++away)
        for (std::int64_t step : {nearest + away, nearest - away})
            if (step > 0 && std::gcd(step, static_cast<std::int64_t>(ranks)) == 1) return step;
}

RowOwners slot_owners(const Comm& group, const HomeRule& rule, const std::vector<int>& candidate_of_slot) {
    RowOwners owners{&group, std::vector<int>(candidate_of_slot.size())};
    for (std::size_t slot = 0; slot < candidate_of_slot.size(); ++slot)
        owners.owner[slot] = rule.home(candidate_of_slot[slot]);
    return owners;
}

}  // namespace switchyard

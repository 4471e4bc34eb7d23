// The words of the configuration.
#include "comm/collectives_choice.hpp"

#include "core/error.hpp"

namespace switchyard {

CollectivesChoice collectives_choice(const std::string& way, const std::string& order) {
    CollectivesChoice choice;
    choice.way = way == "nccl"     ? CollectivesWay::nccl
                 : way == "mpi"    ? CollectivesWay::mpi
                 : way == "staged" ? CollectivesWay::staged
                                   : CollectivesWay::automatic;
    choice.order = order == "library" ? SumOrder::library : SumOrder::rank;
    internal_check(choice.way != CollectivesWay::automatic || way == "auto", "collectives by '{}'", way);
    internal_check(choice.order != SumOrder::rank || order == "rank", "sums in the order '{}'", order);
    return choice;
}

}  // namespace switchyard

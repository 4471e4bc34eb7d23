// The hooks' default bodies: every weight is dense, and rows are owned in blocks.
#include "methods/method.hpp"

namespace switchyard {

GroupAdapters Method::attach_group(const ModelContext& context, LinearGroup& group) {
    return attach_each(group, [&](Linear& linear) { return attach(context, linear); });
}

OwnershipPlan Method::ownership(const ModelContext& context, const Parameter& parameter) {
    OwnershipPlan plan;
    plan.owners = block_owners(owner_group(context.topology, parameter.tp_gradient), parameter.value.dim(0));
    for (int owner : plan.owners.owner) plan.capacity += owner == plan.owners.group->rank();
    return plan;
}

std::vector<Traffic> Method::plan_traffic(const Optimizer& optimizer, std::int64_t steps) const {
    return std::vector<Traffic>(steps, optimizer.plan_traffic());
}

}  // namespace switchyard

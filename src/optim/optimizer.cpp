// The order of owned_ is the order of the model's parameters; every rank walks it alike.
#include "optim/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

/// Elements of one travelling buffer at most: bounds the work space on many ranks.
constexpr std::int64_t buffer_elements = std::int64_t{1} << 22;
DType gradient_dtype(const ModelContext& context) {
    return context.config.optim.gradient_dtype == "bf16" ? DType::bf16 : context.accumulate();
}

/// m, v and the step counter of one row.
std::size_t moved_row_bytes(std::int64_t width, std::size_t element_bytes) {
    return 2 * static_cast<std::size_t>(width) * element_bytes + sizeof(std::int32_t);
}

}  // namespace

Optimizer::Optimizer(const ModelContext& context, const std::vector<Parameter*>& parameters,
                     const std::function<OwnershipPlan(const Parameter&)>& ownership)
    : context_(context), scalars_(context.arena), norm_slot_(scalars_.take()) {
    for (Parameter* parameter : parameters) owned_.emplace_back(context, *parameter, ownership(*parameter));
    for (const Comm* comm : {&context.topology.dp, &context.topology.world})
        for (const bool slots : {false, true}) add_group(*comm, slots);
    const auto take = [&](DType dtype, std::int64_t size) {
        return context.arena.take(MemoryClass::workspace, dtype, {size});
    };
    std::int64_t buffer = 0;
    for (const Group& group : groups_) buffer = std::max(buffer, group.capacity * group.comm->size());
    if (buffer > 0) {
        send_ = take(context.accumulate(), buffer);
        received_ = take(context.accumulate(), buffer);
    }
    clip_ = take(DType::f64, 2);
    sums_ = take(DType::f64, static_cast<std::int64_t>(owned_.size()));
    weights_ = take(DType::f64, static_cast<std::int64_t>(owned_.size()));
    norm_of_ranks_ = RankValues(context.arena, context.topology.world, 1);
    if (context.arena.measuring()) return;
    std::vector<double> weights;
    for (const OwnedParameter& owned : owned_) {
        // Another tp rank counts what all hold alike; what is not finite shows here all the same.
        const bool elsewhere = owned.parameter().tp_gradient == TpGradient::same && context_.tp_rank() != 0;
        weights.push_back(elsewhere ? 0 : 1);
    }
    kernels::upload(weights.data(), weights_);
}

void Optimizer::add_group(const Comm& comm, bool slots) {
    Group group;
    group.comm = &comm;
    group.slots = slots;
    std::int64_t widest = 1, rows = 0;
    for (int i = 0; i < static_cast<int>(owned_.size()); ++i) {
        const OwnedParameter& owned = owned_[i];
        if (owned.owners().group != &comm || owned.step_per_row() != slots) continue;
        group.members.push_back(i);
        group.projected = group.projected || owned.gradient_width() != owned.width();
        widest = std::max({widest, owned.width(), owned.gradient_width()});
        rows += static_cast<std::int64_t>(owned.owners().owner.size());
    }
    if (group.members.empty() || comm.size() == 1) return;
    // Rows of one width side by side fill the segments of all owners alike.
    std::stable_sort(group.members.begin(), group.members.end(),
                     [&](int a, int b) { return owned_[a].width() > owned_[b].width(); });
    for (int i : group.members) {
        group.gradients.push_back(owned_[i].parameter().gradient);
        group.values.push_back(owned_[i].parameter().value);
    }
    group.capacity = std::max(widest, std::min(kernels::segment_elements(), buffer_elements / comm.size()));
    group.value_lists = context_.arena.take(MemoryClass::workspace, DType::i32, {rows});
    if (group.projected)
        group.gradient_lists = context_.arena.take(MemoryClass::workspace, DType::i32, {rows});
    rebuild(group);
    groups_.push_back(std::move(group));
}

std::vector<BucketItem> Optimizer::items(const Group& group, bool gradients,
                                         const std::map<int, std::vector<int>>& other_owners) const {
    std::vector<BucketItem> items;
    for (int i : group.members) {
        const OwnedParameter& owned = owned_[i];
        const auto other = other_owners.find(i);
        items.push_back({gradients ? owned.gradient_width() : owned.width(),
                         other == other_owners.end() ? &owned.owners().owner : &other->second});
    }
    return items;
}

void Optimizer::rebuild(Group& group) {
    const auto build = [&](bool gradients, Tensor memory, std::shared_ptr<const BucketTable>& table) {
        table =
            std::make_shared<BucketTable>(items(group, gradients, {}), group.comm->size(), group.capacity);
        const Tensor lists = memory.rows(0, static_cast<std::int64_t>(table->lists().size()));
        if (!context_.arena.measuring()) kernels::upload(table->lists().data(), lists);
        return Buckets(table, lists);
    };
    group.values_in = build(false, group.value_lists, group.value_table);
    group.gradients_in = group.values_in;
    group.gradient_table = group.value_table;
    if (group.projected) group.gradients_in = build(true, group.gradient_lists, group.gradient_table);
}

void Optimizer::rebuild_buckets() {
    for (Group& group : groups_)
        if (group.slots) rebuild(group);
}

void Optimizer::assign_owners(int parameter, const std::vector<int>& owner) {
    OwnedParameter& owned = owned_[parameter];
    const int self = owned.owners().group->rank();
    for (const bool arriving : {false, true})  // leave first, so that storage never exceeds its capacity
        for (std::int32_t row = 0; row < static_cast<std::int32_t>(owner.size()); ++row)
            if ((owner[row] == self) == arriving) owned.set_owner(row, owner[row]);
    owned.refresh();
}

int Optimizer::index_of(const Parameter* parameter) const {
    for (int i = 0; i < static_cast<int>(owned_.size()); ++i)
        if (&owned_[i].parameter() == parameter) return i;
    throw InternalError("parameter without owner: " + parameter->shard.name);
}

void Optimizer::zero_gradients() {
    std::vector<Tensor> gradients;
    for (const OwnedParameter& owned : owned_) gradients.push_back(owned.parameter().gradient);
    kernels::zero(gradients);
}

void Optimizer::masters_from_values() {
    for (OwnedParameter& owned : owned_) owned.masters_from_values();
}

void Optimizer::values_from_masters() {
    for (OwnedParameter& owned : owned_) owned.values_from_masters();
    Traffic uncounted;
    std::swap(uncounted, context_.traffic);
    gather_values();
    std::swap(uncounted, context_.traffic);
}

void Optimizer::reduce_gradients() {
    for (Group& group : groups_)
        group.gradients_in.reduce(*group.comm, group.gradients,
                                  send_.view(gradient_dtype(context_), send_.shape()),
                                  received_.view(gradient_dtype(context_), received_.shape()),
                                  context_.traffic, TrafficGroup::gradients);
}

void Optimizer::gather_values() {
    for (Group& group : groups_)
        group.values_in.gather(*group.comm, group.values, send_, context_.traffic, TrafficGroup::values);
}

void Optimizer::measure_gradients() {
    std::vector<kernels::RowPart> gradients;
    for (const OwnedParameter& owned : owned_) gradients.push_back(owned.owned_gradient());
    kernels::squared_norms(gradients, sums_);
    kernels::weighted_sum(sums_, weights_, squared_norm());
    norm_of_ranks_.combine(squared_norm(), kernels::Combine::sum, context_.traffic);
}

void Optimizer::decide_clip(Tensor loss) {
    kernels::clip_coefficient(squared_norm(), loss, context_.config.optim.clip_norm, clip_);
}

double Optimizer::gradient_norm(std::span<const double> scalars) const {
    return std::sqrt(scalars[norm_slot_]);
}

std::string Optimizer::first_bad_gradient() const {
    std::vector<double> sums(owned_.size());
    kernels::download(sums_, sums.data());
    const auto bad = std::find_if(sums.begin(), sums.end(), [](double sum) { return !std::isfinite(sum); });
    const auto first = static_cast<std::size_t>(
        all_reduce_min(context_.topology.world, static_cast<double>(bad - sums.begin())));
    return first < owned_.size() ? owned_[first].parameter().shard.name : "";
}

void Optimizer::update(double lr_factor, const Adjust& adjust) {
    const OptimConfig& optim = context_.config.optim;
    const double dense_lr = optim.dense_lr > 0 ? optim.dense_lr : optim.lr;
    updates_.clear();
    for (OwnedParameter& owned : owned_) {
        const double lr = lr_factor * (owned.parameter().factor ? optim.lr : dense_lr);
        kernels::AdamWSettings settings{lr, optim.beta1, optim.beta2, optim.eps, optim.weight_decay};
        if (adjust(owned, settings) && owned.num_rows() > 0) updates_.push_back(owned.adamw_rows(settings));
    }
    kernels::adamw(updates_, clip_);
}

void Optimizer::move_rows(const std::vector<RowMove>& moves) {
    const std::size_t element = size_of(context_.accumulate());
    // One exchange per group and width of the moments: {m, v, step}.
    std::map<std::pair<const Comm*, std::int64_t>, std::vector<RowMove>> classes;
    for (const RowMove& move : moves)
        if (move.from != move.to)
            classes[{owned_[move.parameter].owners().group, owned_[move.parameter].gradient_width()}]
                .push_back(move);

    struct Arrival {
        const RowMove* move;
        std::vector<std::byte> state;
    };
    std::vector<Arrival> arrivals;
    std::vector<std::pair<const Comm*, std::int64_t>>
        order;  // the same on all ranks: dp before world, then width
    for (const auto& [key, unused] : classes) order.push_back(key);
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
        const bool a_world = a.first == &context_.topology.world,
                   b_world = b.first == &context_.topology.world;
        return std::make_pair(a_world, a.second) < std::make_pair(b_world, b.second);
    });
    for (const auto& key : order) {
        const auto& [comm, width] = key;
        const std::vector<RowMove>& rows = classes[key];
        const std::size_t row_bytes = moved_row_bytes(width, element);
        std::vector<int> from, to;
        std::vector<std::byte> held, wanted;
        std::vector<const RowMove*> expected;
        for (const RowMove& move : rows) {
            from.push_back(move.from);
            to.push_back(move.to);
            if (move.from == comm->rank()) {
                const OwnedParameter& owned = owned_[move.parameter];
                held.resize(held.size() + row_bytes);
                std::byte* out = held.data() + held.size() - row_bytes;
                kernels::download(owned.m(move.row), out);
                kernels::download(owned.v(move.row), out + width * element);
                kernels::download(owned.step(move.row), out + 2 * width * element);
            }
            if (move.to == comm->rank()) expected.push_back(&move);
        }
        wanted.resize(expected.size() * row_bytes);
        exchange_rows(*comm, from, to, held.data(), wanted.data(), row_bytes, context_.traffic,
                      TrafficGroup::moves);
        for (std::size_t i = 0; i < expected.size(); ++i)
            arrivals.push_back(
                {expected[i], {wanted.begin() + i * row_bytes, wanted.begin() + (i + 1) * row_bytes}});
    }

    std::vector<bool> touched(owned_.size(), false);
    const auto apply = [&](bool leaving) {  // leave first, so that storage never exceeds its capacity
        for (const RowMove& move : moves) {
            OwnedParameter& owned = owned_[move.parameter];
            if (move.from == move.to || (move.to == owned.owners().group->rank()) == leaving) continue;
            owned.set_owner(move.row, move.to);
            touched[move.parameter] = true;
        }
    };
    apply(true);
    apply(false);
    for (const Arrival& arrival : arrivals) {
        OwnedParameter& owned = owned_[arrival.move->parameter];
        const std::int64_t width = owned.gradient_width();
        kernels::upload(arrival.state.data(), owned.m(arrival.move->row));
        kernels::upload(arrival.state.data() + width * element, owned.v(arrival.move->row));
        kernels::upload(arrival.state.data() + 2 * width * element, owned.step(arrival.move->row));
    }
    bool any = false;
    for (std::size_t i = 0; i < owned_.size(); ++i)
        if (touched[i]) owned_[i].refresh(), any = true;
    if (any) rebuild_buckets();
}

Traffic Optimizer::plan_traffic(const std::map<int, std::vector<int>>& other_owners) const {
    Traffic traffic;
    for (const Group& group : groups_) {
        const bool other = std::any_of(group.members.begin(), group.members.end(),
                                       [&](int i) { return other_owners.contains(i); });
        const auto bytes = [&](const BucketTable& table, bool gradients, DType dtype) {
            return !other ? table.bytes(size_of(dtype))
                          : bucket_bytes(items(group, gradients, other_owners), group.comm->size(),
                                         group.capacity, size_of(dtype));
        };
        traffic.add(TrafficGroup::gradients, bytes(*group.gradient_table, true, gradient_dtype(context_)));
        traffic.add(TrafficGroup::values, bytes(*group.value_table, false, context_.dtype));
    }
    return traffic;
}

double Optimizer::move_bytes(const RowMove& move) const {
    const OwnedParameter& owned = owned_[move.parameter];
    if (move.from == move.to || move.from != owned.owners().group->rank()) return 0;
    return static_cast<double>(moved_row_bytes(owned.gradient_width(), size_of(context_.accumulate())));
}

void Optimizer::visit_state(StateIo& io) {
    for (OwnedParameter& owned : owned_) owned.visit_state(io, context_);
}

}  // namespace switchyard

// owned_ is in the order of the model's parameters, and every rank walks it in this order.
#include "optim/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "comm/uncounted.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

/// The largest number of elements of a communication buffer. It bounds the work space on many ranks.
constexpr std::int64_t buffer_elements = std::int64_t{1} << 22;
DType gradient_dtype(const ModelContext& context) {
    return context.config.optim.gradient_dtype == "bf16" ? DType::bf16 : context.accumulate();
}

/// The types of the trained values. Only values of one type are gathered together.
std::vector<DType> value_types(const std::deque<OwnedParameter>& all) {
    std::vector<DType> types;
    for (const OwnedParameter& owned : all) {
        const DType type = owned.parameter().value.dtype();
        if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
    }
    return types;
}

bool has_one_owner(const OwnedParameter& owned) {
    const std::vector<int>& all = owned.owners().owner;
    return std::adjacent_find(all.begin(), all.end(), std::not_equal_to<>()) == all.end();
}

void upload_list(std::span<const std::int32_t> list, Tensor memory) {
    kernels::upload(list.data(), memory);
}

}  // namespace

Optimizer::Optimizer(const ModelContext& context, const std::vector<Parameter*>& parameters,
                     const std::function<OwnershipPlan(const Parameter&)>& ownership)
    : context_(context), scalars_(context.arena), norm_slot_(scalars_.take()) {
    for (Parameter* parameter : parameters) owned_.emplace_back(context, *parameter, ownership(*parameter));
    for (const Comm* comm : {&context.topology.dp, &context.topology.world})
        for (const bool slots : {false, true})
            for (const DType type : value_types(owned_)) add_group(*comm, slots, type);
    const auto take = [&](DType dtype, std::int64_t size) {
        return context.arena.take(MemoryClass::workspace, dtype, {size});
    };
    std::int64_t buffer = 0;
    for (const Group& group : groups_) buffer = std::max(buffer, group.capacity * group.comm->size());
    std::size_t moving = 0;
    for (const OwnedParameter& owned : owned_)
        moving += static_cast<std::size_t>(owned.most_moving()) * moved_row_bytes(owned);
    const std::size_t element = size_of(context.accumulate());
    buffer = std::max(buffer, static_cast<std::int64_t>((moving + element - 1) / element));
    if (buffer > 0) {
        send_ = take(context.accumulate(), buffer);
        received_ = take(context.accumulate(), buffer);
    }
    take_end_maxima();
    clip_ = take(DType::f64, 2);
    sums_ = take(DType::f64, static_cast<std::int64_t>(owned_.size()));
    weights_ = take(DType::f64, static_cast<std::int64_t>(owned_.size()));
    norm_of_ranks_ = RankValues(context.arena, context.topology.world, 1);
    if (context.arena.measuring()) return;
    std::vector<double> weights;
    for (const OwnedParameter& owned : owned_) {
        // What all tp ranks hold alike is counted by tp rank 0 only. Numbers that are not finite show on
        // every rank nevertheless.
        const bool elsewhere = owned.parameter().tp_gradient == TpGradient::same && context_.tp_rank() != 0;
        weights.push_back(elsewhere ? 0 : 1);
    }
    kernels::upload(weights.data(), weights_);
}

void Optimizer::take_end_maxima() {
    std::int64_t all = 0;
    const auto of = [](const OwnedParameter& owned) {
        return owned.shares_blocks() ? 4 * owned.capacity() : 0;
    };
    for (const OwnedParameter& owned : owned_) all += of(owned);
    if (all == 0) return;
    const auto take = [&](Shape shape) {
        return context_.arena.take(MemoryClass::workspace, context_.accumulate(), shape);
    };
    end_maxima_ = take({all});
    maxima_of_ranks_ = take({context_.tp_size(), all});
    std::int64_t next = 0;
    for (OwnedParameter& owned : owned_) {
        first_maximum_.push_back(next);
        if (!owned.shares_blocks()) continue;
        owned.keep_end_maxima(end_maxima_.rows(next, of(owned)).reshape({owned.capacity(), 4}));
        next += of(owned);
    }
}

void Optimizer::code_shared_blocks() {
    if (end_maxima_.empty()) return;
    start_all_gather(context_.topology.tp, end_maxima_, maxima_of_ranks_, context_.traffic,
                     TrafficGroup::other)
        .wait();
    kernels::code_shared_blocks(shared_, maxima_of_ranks_, clip_);
}

void Optimizer::add_group(const Comm& comm, bool slots, DType type) {
    Group group;
    group.comm = &comm;
    group.slots = slots;
    group.type = type;
    std::int64_t widest = 1, rows = 0;
    for (int i = 0; i < static_cast<int>(owned_.size()); ++i) {
        const OwnedParameter& owned = owned_[i];
        if (owned.owners().group != &comm || owned.step_per_row() != slots ||
            owned.parameter().value.dtype() != type)
            continue;
        group.members.push_back(i);
        group.projected = group.projected || owned.gradient_width() != owned.width();
        widest = std::max({widest, owned.width(), owned.gradient_width()});
        rows += static_cast<std::int64_t>(owned.owners().owner.size());
    }
    if (group.members.empty() || comm.size() == 1) return;
    // Sorted by width, because consecutive rows of one width fill the segments of all owners equally.
    // Matrices of one owner come last: what is shared by all would wait for the fullest segment.
    std::stable_sort(group.members.begin(), group.members.end(), [&](int a, int b) {
        const auto key = [&](int i) {
            return std::pair(!slots && has_one_owner(owned_[i]), -owned_[i].width());
        };
        return key(a) < key(b);
    });
    for (int i : group.members) {
        group.gradients.push_back(owned_[i].parameter().gradient);
        group.values.push_back(owned_[i].parameter().value);
    }
    group.capacity = std::max(widest, std::min(kernels::segment_elements(), buffer_elements / comm.size()));
    group.value_lists = context_.arena.take(MemoryClass::workspace, DType::i32, {rows});
    if (group.projected)
        group.gradient_lists = context_.arena.take(MemoryClass::workspace, DType::i32, {rows});
    rebuild(group, upload_list);
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

void Optimizer::rebuild(Group& group, const PlaceList& place) {
    const auto build = [&](bool gradients, Tensor memory, std::shared_ptr<const BucketTable>& table) {
        table =
            std::make_shared<BucketTable>(items(group, gradients, {}), group.comm->size(), group.capacity);
        const Tensor lists = memory.rows(0, static_cast<std::int64_t>(table->lists().size()));
        if (!context_.arena.measuring()) place(table->lists(), lists);
        return Buckets(table, lists);
    };
    group.values_in = build(false, group.value_lists, group.value_table);
    group.gradients_in = group.values_in;
    group.gradient_table = group.value_table;
    if (group.projected) group.gradients_in = build(true, group.gradient_lists, group.gradient_table);
}

void Optimizer::rebuild_buckets() {
    for (Group& group : groups_)
        if (group.slots) rebuild(group, upload_list);
}

void Optimizer::assign_owners(int parameter, const std::vector<int>& owner) {
    owned_[parameter].assign_owners(owner);
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
    const Uncounted scope(context_.traffic);
    gather_values();
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

void Optimizer::measure_gradients(const std::function<void()>& replace) {
    std::vector<kernels::RowPart> gradients;
    for (const OwnedParameter& owned : owned_) gradients.push_back(owned.owned_gradient());
    kernels::squared_norms(gradients, sums_);
    replace();
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
    shared_.clear();
    for (std::size_t i = 0; i < owned_.size(); ++i) {
        OwnedParameter& owned = owned_[i];
        const double lr = lr_factor * (owned.parameter().of_linear() ? optim.lr : dense_lr);
        const bool decays = optim.decay_norms || owned.parameter().role != ParameterRole::norm;
        kernels::AdamWSettings settings{lr, optim.beta1, optim.beta2, optim.eps,
                                        decays ? optim.weight_decay : 0};
        if (!adjust(owned, settings) || owned.num_rows() == 0) continue;
        updates_.push_back(owned.adamw_rows(settings));
        if (owned.shares_blocks()) shared_.push_back({updates_.back(), first_maximum_[i]});
    }
    kernels::adamw(updates_, clip_);
    code_shared_blocks();
}

RowMoves Optimizer::plan_moves(const std::vector<RowMove>& moves, kernels::StepLists& lists) {
    RowMoves planned(owned_, moves, send_, received_, lists);
    for (Group& group : groups_)
        if (std::any_of(group.members.begin(), group.members.end(), [&](int i) {
                return std::binary_search(planned.touched().begin(), planned.touched().end(), i);
            }))
            rebuild(group, [&](std::span<const std::int32_t> list, Tensor memory) {
                if (list.empty()) return;
                planned.arrive.copy(kernels::whole_rows(lists.add(list)), kernels::whole_rows(memory));
            });
    return planned;
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
        traffic.add(TrafficGroup::values, bytes(*group.value_table, false, group.type));
    }
    if (!maxima_of_ranks_.empty())
        traffic.add(TrafficGroup::other,
                    all_gather_bytes(static_cast<double>(maxima_of_ranks_.bytes()), context_.tp_size()));
    return traffic;
}

std::vector<std::string> Optimizer::notes() const {
    if (context_.config.optim.state_bits == "32") return {};
    int tensors = 0;
    double others = 0, all = 0;
    for (const OwnedParameter& owned : owned_) {
        const auto elements = static_cast<double>(owned.capacity() * (owned.m_width() + owned.v_width()));
        all += elements;
        if (owned.m_width() != owned.v_width()) ++tensors, others += elements;
    }
    if (tensors == 0) return {};
    return {fmt::format(
        "optim.state_bits = {} is for pairs of moments of one shape, and the method keeps other ones for {} "
        "tensors: these stay at 32 bits, {:.0f} % of the moments' elements here",
        context_.config.optim.state_bits, tensors, all > 0 ? 100 * others / all : 0)};
}

double Optimizer::move_bytes(const RowMove& move) const {
    const OwnedParameter& owned = owned_[move.parameter];
    if (move.from == move.to || move.from != owned.owners().group->rank()) return 0;
    return static_cast<double>(moved_row_bytes(owned));
}

void Optimizer::visit_state(StateIo& io) {
    for (OwnedParameter& owned : owned_) owned.visit_state(io, context_);
}

}  // namespace switchyard

// The state of a row is sent as the bytes of its moments, one after another, and of its step counter.
#include "optim/row_moves.hpp"

#include <algorithm>
#include <map>

#include "core/error.hpp"

namespace switchyard {

std::size_t moved_row_bytes(const OwnedParameter& owned) {
    std::size_t bytes = 0, largest = 1;
    for (const Tensor& part : owned.travelling()) {
        const std::size_t element = size_of(part.dtype());
        bytes = (bytes + element - 1) / element * element + static_cast<std::size_t>(part.dim(1)) * element;
        largest = std::max({largest, element, sizeof(std::int32_t)});
    }
    return (bytes + largest - 1) / largest * largest;
}

namespace {

/// Part `index` of the state in packed rows (n, row_bytes), with its own type.
kernels::RowPart packed_part(const OwnedParameter& owned, std::size_t index, Tensor packed) {
    std::size_t offset = 0;
    const std::vector<Tensor> parts = owned.travelling();
    for (std::size_t i = 0;; ++i) {
        const std::size_t element = size_of(parts[i].dtype());
        offset = (offset + element - 1) / element * element;
        if (i < index) {
            offset += static_cast<std::size_t>(parts[i].dim(1)) * element;
            continue;
        }
        const std::int64_t rows = packed.dim(0),
                           stride = static_cast<std::int64_t>(moved_row_bytes(owned) / element);
        return {packed.view(parts[i].dtype(), {rows, stride}), kernels::Rows::range(0, rows),
                static_cast<std::int64_t>(offset / element), parts[i].dim(1)};
    }
}

}  // namespace

std::vector<Tensor> RowMoves::place(std::deque<OwnedParameter>& owned, const Runs& runs, Tensor space,
                                    std::int64_t& used, kernels::RowBatch& batch, kernels::StepLists& lists,
                                    bool leaving) {
    std::vector<Tensor> of_rank;
    for (const std::vector<Run>& of_peer : runs) {
        const std::int64_t begin = used;
        for (const Run& run : of_peer) {
            const OwnedParameter& x = owned[run.parameter];
            const auto rows = static_cast<std::int64_t>(run.rows.size());
            const auto width = static_cast<std::int64_t>(moved_row_bytes(x) / sizeof(std::int32_t));
            internal_check(used + rows * width <= space.size(), "{}: more rows move at once than planned",
                           x.parameter().shard.name);
            const Tensor packed = space.rows(used, rows * width).reshape({rows, width});
            used += rows * width;
            const kernels::Rows stored = lists.rows(x.stored(run.rows));
            const std::vector<Tensor> parts = x.travelling();
            for (std::size_t i = 0; i < parts.size(); ++i) {
                const kernels::RowPart here = kernels::whole_rows(parts[i], stored),
                                       there = packed_part(x, i, packed);
                leaving ? batch.copy(here, there) : batch.copy(there, here);
            }
        }
        of_rank.push_back(space.rows(begin, used - begin));
    }
    return of_rank;
}

RowMoves::RowMoves(std::deque<OwnedParameter>& owned, const std::vector<RowMove>& moves, Tensor send,
                   Tensor received, kernels::StepLists& lists) {
    struct OfGroup {
        Runs leaving, arriving;
    };
    std::vector<std::pair<const Comm*, OfGroup>>
        groups;  // in the order of their first move, which is the same on all ranks
    struct OfParameter {
        std::vector<std::int32_t> rows;
        std::vector<int> owners;
    };
    std::map<int, OfParameter> by_parameter;
    for (const RowMove& move : moves) {
        if (move.from == move.to) continue;
        by_parameter[move.parameter].rows.push_back(move.row);
        by_parameter[move.parameter].owners.push_back(move.to);
        const Comm* comm = owned[move.parameter].owners().group;
        auto group =
            std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == comm; });
        if (group == groups.end())
            group = groups.insert(groups.end(), {comm, {Runs(comm->size()), Runs(comm->size())}});
        const auto add = [&](std::vector<Run>& runs) {
            if (runs.empty() || runs.back().parameter != move.parameter) runs.push_back({move.parameter, {}});
            runs.back().rows.push_back(move.row);
        };
        if (move.from == comm->rank()) add(group->second.leaving[move.to]);
        if (move.to == comm->rank()) add(group->second.arriving[move.from]);
    }
    const auto words = [](Tensor space) {
        return space.view(DType::i32, {static_cast<std::int64_t>(space.bytes() / sizeof(std::int32_t))});
    };
    std::int64_t sent = 0, arrived = 0;
    for (const auto& [comm, rows] : groups)
        exchanges_.push_back({comm, place(owned, rows.leaving, words(send), sent, leave, lists, true), {}});
    for (const auto& [parameter, some] : by_parameter) {
        owned[parameter].change_owners(some.rows, some.owners, lists, close_gaps);
        touched_.push_back(parameter);
    }
    for (std::size_t i = 0; i < groups.size(); ++i)
        exchanges_[i].received =
            place(owned, groups[i].second.arriving, words(received), arrived, arrive, lists, false);
    for (int parameter : touched_) owned[parameter].refresh(lists, arrive);
}

void RowMoves::exchange(Traffic& traffic) const {
    for (const Exchange& x : exchanges_)
        start_exchange(*x.group, x.send, x.received, traffic, TrafficGroup::moves).wait();
}

}  // namespace switchyard

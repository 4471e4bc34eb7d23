// RowMoves: rows of parameters change owner. The host's tables change when a move is planned. Later, moments
// and step counters are packed by kernels, sent in one exchange per group, and unpacked. Masters are not
// sent.
#pragma once

#include <deque>
#include <vector>

#include "kernels/step_memory.hpp"
#include "optim/owned_parameter.hpp"

namespace switchyard {

/// A row that changes owner. Ranks are numbered within the parameter's group.
struct RowMove {
    int parameter = 0;  // index in Optimizer::owned()
    std::int32_t row = 0;
    int from = 0, to = 0;
};

/// Bytes that are sent for one row of a parameter.
std::size_t moved_row_bytes(const OwnedParameter&);

class RowMoves {
  public:
    RowMoves() = default;
    /// Changes the owners in `owned`. All ranks must give the same moves. Lists are added to `lists`, which
    /// must be committed before the first batch is run. send, received: work space for the rows that leave
    /// and arrive.
    RowMoves(std::deque<OwnedParameter>& owned, const std::vector<RowMove>&, Tensor send, Tensor received,
             kernels::StepLists& lists);

    /// To be run in this order, with exchange() after the first. A caller may add work of its own to each.
    kernels::RowBatch leave;  // state of leaving rows -> work space; reads the storage as before the move
    kernels::RowBatch close_gaps;  // rows at the end of the storage -> places of rows that left
    kernels::RowBatch arrive;      // work space -> state; from here on the storage is that after the move
    /// Collective over the groups of the parameters whose rows move.
    void exchange(Traffic&) const;

    /// The parameters whose owners changed, in ascending order.
    const std::vector<int>& touched() const { return touched_; }

  private:
    struct Exchange {
        const Comm* group = nullptr;
        std::vector<Tensor> send, received;  // i32, one tensor per rank
    };
    /// Consecutive rows in the work space: those of one parameter for one rank.
    struct Run {
        int parameter = 0;
        std::vector<std::int32_t> rows;
    };
    using Runs = std::vector<std::vector<Run>>;  // one list per rank
    std::vector<Tensor> place(std::deque<OwnedParameter>&, const Runs&, Tensor space, std::int64_t& used,
                              kernels::RowBatch&, kernels::StepLists&, bool leaving);

    std::vector<Exchange> exchanges_;
    std::vector<int> touched_;
};

}  // namespace switchyard

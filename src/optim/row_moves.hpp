// RowMoves: rows of parameters change owner. The host's tables change when a move is planned; then moments
// and step counters travel, packed and unpacked by kernels, in one exchange a group. Masters do not travel.
#pragma once

#include <deque>
#include <vector>

#include "kernels/step_memory.hpp"
#include "optim/owned_parameter.hpp"

namespace switchyard {

/// A row that changes owner: rank numbers within the parameter's group.
struct RowMove {
    int parameter = 0;  // index in Optimizer::owned()
    std::int32_t row = 0;
    int from = 0, to = 0;
};

/// Bytes that travel for one row of a parameter.
std::size_t moved_row_bytes(const OwnedParameter&);

class RowMoves {
  public:
    RowMoves() = default;
    /// Changes the owners in `owned`. All ranks give the same moves. Lists are added to `lists`, which are to
    /// be committed before the first batch is run. send, received: work space for what leaves and what
    /// arrives.
    RowMoves(std::deque<OwnedParameter>& owned, const std::vector<RowMove>&, Tensor send, Tensor received,
             kernels::StepLists& lists);

    /// To be run in this order, exchange() after the first; a caller may add work of its own to each.
    kernels::RowBatch leave;       // state of leaving rows -> work space; reads storage of before the move
    kernels::RowBatch close_gaps;  // rows at the end of the storage -> where rows have left
    kernels::RowBatch arrive;      // work space -> state; storage of after the move from here on
    /// Collective over the groups of the parameters that move.
    void exchange(Traffic&) const;

    /// Parameters whose owners changed, in ascending order.
    const std::vector<int>& touched() const { return touched_; }

  private:
    struct Exchange {
        const Comm* group = nullptr;
        std::vector<Tensor> send, received;  // i32, per rank
    };
    /// Rows of one parameter for one rank, which lie side by side in the work space.
    struct Run {
        int parameter = 0;
        std::vector<std::int32_t> rows;
    };
    using Runs = std::vector<std::vector<Run>>;  // per rank
    std::vector<Tensor> place(std::deque<OwnedParameter>&, const Runs&, Tensor space, std::int64_t& used,
                              kernels::RowBatch&, kernels::StepLists&, bool leaving);

    std::vector<Exchange> exchanges_;
    std::vector<int> touched_;
};

}  // namespace switchyard

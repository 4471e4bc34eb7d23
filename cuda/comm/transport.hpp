// One way of moving device memory between the ranks of a communicator. A collective is started with all sizes
// checked and at least two ranks, and ended by what its start returns: called once, in the order of the
// starts, the same on all ranks. Sums are formed in rank order: the bits are the same on every way, and those
// of a CPU.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "comm/collectives_choice.hpp"
#include "core/tensor.hpp"

namespace switchyard::cuda {

/// Hangs on the communicator, which it must not hold, and is the same for all of its collectives.
class Transport {
  public:
    using Finish = std::function<void()>;

    virtual ~Transport() = default;
    virtual std::string text() const = 0;
    virtual Finish start_all_reduce(const Comm&, Tensor tensor, Tensor scratch) = 0;
    /// The spans end with the call.
    virtual Finish start_exchange(const Comm&, std::span<const Tensor> send,
                                  std::span<const Tensor> received) = 0;
    virtual Finish start_all_gather(const Comm&, Tensor mine, Tensor all) = 0;
};

/// Through pinned host memory. Works everywhere; the host waits for the device and for the network.
std::unique_ptr<Transport> make_staged();
/// Point to point from and to device memory, by an MPI library that can. The host waits here too.
std::unique_ptr<Transport> make_direct_mpi();

}  // namespace switchyard::cuda

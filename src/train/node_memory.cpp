// The requests of all ranks of a node that share a pool are added up before they are compared. On a GPU each
// rank leaves some of it to what comes later: modules that are loaded at their first kernel, local memory of
// kernels, buffers of NCCL.
#include "train/node_memory.hpp"

#include <array>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "core/processor.hpp"
#include "core/units.hpp"

namespace switchyard {
namespace {

constexpr double left_for_driver_bytes = 512.0 * 1024 * 1024;  // of a GPU, by each of its ranks

/// The memory that a rank requests, and from which pool.
struct Demand {
    std::array<char, 128> pool{};  // key of the pool, cut at this length
    double bytes = 0;
};

}  // namespace

Arena allocate_arena(const Topology& topology, const Arena& measured) {
    const backend::Pool pool = backend::pool();
    Demand mine{.bytes = static_cast<double>(measured.total_bytes())};
    pool.key.copy(mine.pool.data(), mine.pool.size());
    double together = 0;
    int ranks = 0;
    for (const Demand& demand : gather_values(topology.node, mine)) {
        if (demand.pool != mine.pool) continue;
        together += demand.bytes;
        ++ranks;
    }
    const double left = backend::processor().is_gpu ? ranks * left_for_driver_bytes : 0;
    agree_on(topology.world, [&] {
        require(
            together <= pool.free_bytes - left,
            "out of memory: {} ranks on {} need {}, {} are available{} (this rank needs {}: {}); use more "
            "nodes, a larger parallel.tp, a smaller data.micro_batch or model.recompute (`switchyard "
            "plan` shows the cost before a run)",
            ranks, pool.name, bytes_text(together), bytes_text(pool.free_bytes),
            left > 0 ? fmt::format(", of which {} are left to the driver and NCCL", bytes_text(left)) : "",
            bytes_text(mine.bytes), measured.text());
    });
    return agreed(topology.world, [&] { return Arena::allocate(measured); });
}

}  // namespace switchyard

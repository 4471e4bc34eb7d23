// Ranks tell each other what they have and choose alike. The choice hangs on the MPI communicator as an
// attribute, so that it, and NCCL's communicator with it, ends when that is freed.
#include "cuda/comm/way.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "comm/library.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "cuda/comm/nccl.hpp"
#include "cuda/runtime.hpp"

namespace switchyard {
namespace {

CollectivesChoice chosen;

/// What a rank has. `gpu`: the same for two ranks that share one.
struct Means {
    std::array<char, 16> gpu{};
    bool nccl = false, direct_mpi = false;
};

Means means_here() {
    Means means;
    const auto& uuid = cuda::device_properties().uuid.bytes;
    std::copy(std::begin(uuid), std::end(uuid), means.gpu.begin());
    means.nccl = !cuda::nccl_version().empty();
    means.direct_mpi = std::string_view(gpu_awareness()) == "yes";
    return means;
}

/// Why these ranks cannot use it; "" if they can.
std::string problem_with_nccl(const std::vector<Means>& ranks) {
    for (std::size_t b = 0; b < ranks.size(); ++b) {
        if (!ranks[b].nccl) return "this program was built without it";
        for (std::size_t a = 0; a < b; ++a)
            if (ranks[a].gpu == ranks[b].gpu)
                return fmt::format("ranks {} and {} of a group of {} share a GPU, which NCCL refuses", a, b,
                                   ranks.size());
    }
    return "";
}

/// What hangs on a communicator.
struct Way {
    std::unique_ptr<cuda::Transport> transport;
    std::string instead_of;  // " (...)": what was tried before
};

Way agreed_way(const Comm& comm) {
    const std::vector<Means> ranks = gather_values(comm, means_here());
    const bool automatic = chosen.way == CollectivesWay::automatic;
    const bool direct_mpi =
        std::all_of(ranks.begin(), ranks.end(), [](const Means& m) { return m.direct_mpi; });
    std::string no_nccl = problem_with_nccl(ranks), remedy = "start one rank for each GPU", instead_of;
    cuda::NcclStart nccl;
    if (no_nccl.empty() && (automatic || chosen.way == CollectivesWay::nccl)) {
        nccl = cuda::start_nccl(comm, chosen.order);
        if (!nccl.transport) {
            no_nccl = fmt::format("NCCL does not start on {}", nccl.problem);
            remedy = "set NCCL_DEBUG=WARN to see why";
            instead_of = fmt::format(" ({}; {})", no_nccl, remedy);
        }
    }
    require<AgreedError>(chosen.way != CollectivesWay::nccl || nccl.transport,
                         "parallel.collectives = nccl cannot be used here: {}; {}, or use auto", no_nccl,
                         remedy);
    require<AgreedError>(
        chosen.way != CollectivesWay::mpi || direct_mpi,
        "parallel.collectives = mpi cannot be used here: {} does not say that it takes GPU memory; load "
        "an MPI library built for CUDA, or use auto",
        mpi_library());
    require<AgreedError>(
        chosen.order == SumOrder::rank || nccl.transport,
        "parallel.sum_order = library asks NCCL for its sums, and these ranks do not use it ({}); use "
        "rank",
        no_nccl.empty() ? "parallel.collectives says otherwise" : no_nccl);
    if (nccl.transport) return {std::move(nccl.transport), ""};
    // By name alone: the library says how it was built, not whether its transport takes GPU memory.
    if (chosen.way == CollectivesWay::mpi) return {cuda::make_direct_mpi(), instead_of};
    return {cuda::make_staged(), instead_of};
}

int destroy_way(MPI_Comm, int, void* attribute, void*) {
    delete static_cast<Way*>(attribute);
    return MPI_SUCCESS;
}

int attribute_key() {
    static const int key = [] {
        int created = MPI_KEYVAL_INVALID;
        SWITCHYARD_MPI(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, destroy_way, &created, nullptr));
        return created;
    }();
    return key;
}

/// Collective when it is first asked about a communicator.
const Way& way_of(const Comm& comm) {
    void* found = nullptr;
    int exists = 0;
    SWITCHYARD_MPI(MPI_Comm_get_attr(comm.handle(), attribute_key(), &found, &exists));
    if (exists) return *static_cast<const Way*>(found);
    auto made = std::make_unique<Way>(agreed_way(comm));
    SWITCHYARD_MPI(MPI_Comm_set_attr(comm.handle(), attribute_key(), made.get()));
    return *made.release();
}

}  // namespace

cuda::Transport& cuda::transport_of(const Comm& comm) {
    return *way_of(comm).transport;
}

void choose_collectives(const CollectivesChoice& choice) {
    chosen = choice;
}

std::string collectives_text(const Comm& comm) {
    if (comm.size() == 1) return "one rank";
    const Way& way = way_of(comm);
    return way.transport->text() + way.instead_of;
}

}  // namespace switchyard

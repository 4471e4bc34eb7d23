// Ranks tell each other what they have and choose alike. The choice hangs on the MPI communicator as an
// attribute, so that it, and NCCL's communicator with it, ends when that is freed.
#include "cuda/comm/way.hpp"

#include <algorithm>
#include <array>
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

CollectivesWay agreed_way(const std::vector<Means>& ranks) {
    const std::string no_nccl = problem_with_nccl(ranks);
    const bool direct_mpi =
        std::all_of(ranks.begin(), ranks.end(), [](const Means& m) { return m.direct_mpi; });
    require<AgreedError>(
        chosen.way != CollectivesWay::nccl || no_nccl.empty(),
        "parallel.collectives = nccl cannot be used here: {}; start one rank for each GPU, or use auto",
        no_nccl);
    require<AgreedError>(
        chosen.way != CollectivesWay::mpi || direct_mpi,
        "parallel.collectives = mpi cannot be used here: {} does not say that it takes GPU memory; load "
        "an MPI library built for CUDA, or use auto",
        mpi_library());
    const CollectivesWay way = chosen.way != CollectivesWay::automatic ? chosen.way
                               : no_nccl.empty()                       ? CollectivesWay::nccl
                               : direct_mpi                            ? CollectivesWay::mpi
                                                                       : CollectivesWay::staged;
    require<AgreedError>(
        chosen.order == SumOrder::rank || way == CollectivesWay::nccl,
        "parallel.sum_order = library asks NCCL for its sums, and these ranks do not use it ({}); use "
        "rank",
        no_nccl.empty() ? "parallel.collectives says otherwise" : no_nccl);
    return way;
}

std::unique_ptr<cuda::Transport> make_transport(const Comm& comm) {
    switch (agreed_way(gather_values(comm, means_here()))) {
        case CollectivesWay::nccl:
            return cuda::make_nccl(comm, chosen.order);
        case CollectivesWay::mpi:
            return cuda::make_direct_mpi();
        default:
            return cuda::make_staged();
    }
}

int destroy_transport(MPI_Comm, int, void* attribute, void*) {
    delete static_cast<cuda::Transport*>(attribute);
    return MPI_SUCCESS;
}

int attribute_key() {
    static const int key = [] {
        int created = MPI_KEYVAL_INVALID;
        SWITCHYARD_MPI(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, destroy_transport, &created, nullptr));
        return created;
    }();
    return key;
}

}  // namespace

cuda::Transport& cuda::transport_of(const Comm& comm) {
    void* found = nullptr;
    int exists = 0;
    SWITCHYARD_MPI(MPI_Comm_get_attr(comm.handle(), attribute_key(), &found, &exists));
    if (exists) return *static_cast<Transport*>(found);
    std::unique_ptr<Transport> made = make_transport(comm);
    SWITCHYARD_MPI(MPI_Comm_set_attr(comm.handle(), attribute_key(), made.get()));
    return *made.release();
}

void choose_collectives(const CollectivesChoice& choice) {
    chosen = choice;
}

std::string collectives_text(const Comm& comm) {
    return comm.size() == 1 ? "one rank" : cuda::transport_of(comm).text();
}

}  // namespace switchyard

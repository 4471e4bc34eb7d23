// What saving and loading share: rounds, and the messages of one.
#include "io/checkpoint/windows.hpp"

#include "core/last_calls.hpp"
#include "io/checkpoint/window_messages.hpp"

namespace switchyard {

WindowPlan WindowPlan::for_saving(int ranks, std::uint64_t window_bytes) {
    if (ranks == 1) return {ranks, window_bytes, window_bytes};  // a window stays in cache
    constexpr std::uint64_t most = 16 << 20;
    return {ranks, window_bytes, std::max<std::uint64_t>(1, most / window_bytes) * window_bytes * ranks};
}

WindowPlan WindowPlan::for_loading(int ranks, std::uint64_t window_bytes) {
    constexpr std::uint64_t most = 64 << 20;
    return {ranks, window_bytes, std::max<std::uint64_t>(1, most / window_bytes) * window_bytes};
}

std::vector<Bytes> exchange_messages(const Comm& comm, std::vector<Bytes>& sent) {
    const int ranks = comm.size(), own = comm.rank();
    std::vector<Bytes> received(ranks);
    received[own] = std::move(sent[own]);
    if (ranks == 1) return received;
    std::vector<std::uint64_t> sizes, sizes_here(ranks);
    for (const Bytes& bytes : sent) sizes.push_back(bytes.size);
    sizes[own] = 0;
    const CollectiveCall call{"exchange of a checkpoint's parts", nullptr, ranks, 0};
    note_collective(call, CollectiveState::awaited);
    SWITCHYARD_MPI(MPI_Alltoall(sizes.data(), 8, MPI_BYTE, sizes_here.data(), 8, MPI_BYTE, comm.handle()));
    for (int from = 0; from < ranks; ++from)
        if (from != own) received[from] = Bytes(sizes_here[from]);
    Requests requests;
    for (int away = 1; away < ranks; ++away) {
        const int from = (own + ranks - away) % ranks;
        start_receive(comm, received[from].data.get(), received[from].size, from, message_limit, requests);
    }
    for (int away = 1; away < ranks; ++away) {
        const int to = (own + away) % ranks;
        start_send(comm, sent[to].data.get(), sent[to].size, to, message_limit, requests);
    }
    requests.wait();
    note_collective(call, CollectiveState::ended);
    return received;
}

}  // namespace switchyard

// A rank alone cannot tell whether the others failed too, and may not ask: they could be waiting elsewhere.
#include "comm/failure.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>

#include "comm/comm.hpp"
#include "core/output.hpp"

namespace switchyard {

void wait_for_lower_ranks(int rank, const std::exception& error) {
    for (int signal : {SIGTERM, SIGINT, SIGUSR1}) std::signal(signal, SIG_DFL);
    if (rank == 0) return;
    static bool waited = false;  // once per failure is enough
    if (waited) return;
    waited = true;
    const bool rank_0_speaks =
        dynamic_cast<const AgreedError*>(&error) || dynamic_cast<const AgreedInternalError*>(&error);
    std::this_thread::sleep_for(
        std::chrono::milliseconds((rank_0_speaks ? 60000 : 2000) + 100 * std::min(rank, 20)));
}

std::string message_of(const std::exception& error) {
    if (!dynamic_cast<const std::bad_alloc*>(&error)) return error.what();
    return "out of memory outside the arena (`switchyard plan` counts the arena only); use more nodes, fewer "
           "ranks per node or smaller sizes";
}

void abort_all_ranks(int rank, const std::string& message) {
    print_error("[rank {}] {}", rank, message);
    std::fflush(nullptr);
    abort_job();
}

}  // namespace switchyard

// A rank alone cannot tell whether the others failed too, and cannot ask, because they may be waiting
// elsewhere.
#include "comm/failure.hpp"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

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
namespace {

/// Launchers read the output of ranks from pipes. Hydra, the mpirun of MPICH, loses output that it has not
/// read when a rank aborts (in one run of eight the message). Waits until it is read, but at most a second.
void wait_until_read(int stream) {
    struct stat status {};
    if (::fstat(stream, &status) != 0 || !S_ISFIFO(status.st_mode)) return;
    int unread = 0;
    for (int turn = 0; turn < 1000 && ::ioctl(stream, FIONREAD, &unread) == 0 && unread > 0; ++turn)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

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
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) wait_until_read(stream);
    abort_job();
}

}  // namespace switchyard

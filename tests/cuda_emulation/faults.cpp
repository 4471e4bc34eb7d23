// What a bad address means, said before the process ends by its signal: host code in device memory, a kernel
// beyond a block of device memory, beyond shared memory or beyond its stack. With sanitizers they say it.
#include "faults.hpp"

#include <csignal>
#include <cstdio>

#include "block_resources.hpp"
#include "device_memory.hpp"
#include "sanitizers.hpp"

namespace emulation {
namespace {

struct sigaction before;

void report(const void* address) {
    char thread[80] = "host code";
    if (self) std::snprintf(thread, sizeof thread, "thread %u of block %u", self->number, self->block.x);
    const BadAddress bad = what_is_at(address);
    if (const char* overrun = overrun_at(address))
        std::fprintf(stderr, "CUDA emulation: %s overruns %s\n", thread, overrun);
    else if (bad.released)
        std::fprintf(stderr,
                     "CUDA emulation: %s touches device memory that was freed: byte %td of a block of %zu at "
                     "%p\n",
                     thread, bad.offset, bad.bytes, bad.block);
    else if (bad.block && bad.outside)
        std::fprintf(stderr, "CUDA emulation: %s overruns device memory: byte %td of a block of %zu at %p\n",
                     thread, bad.offset, bad.bytes, bad.block);
    else if (bad.block)
        std::fprintf(stderr,
                     "CUDA emulation: %s touches device memory outside kernels and copies: byte %td of a "
                     "block of %zu at %p\n",
                     thread, bad.offset, bad.bytes, bad.block);
}

/// The instruction is then tried again under the action from before, which ends the process.
void on_fault(int signal, siginfo_t* info, void*) {
    report(info->si_addr);
    ::sigaction(signal, &before, nullptr);
}

}  // namespace

void explain_faults() {
    if (with_sanitizer()) return;
    // A thread that has overrun its stack cannot run the handler on it. Each thread of the host needs its
    // own.
    static thread_local unsigned char handler_stack[64 << 10];
    static thread_local bool done = false;
    if (done) return;
    done = true;
    stack_t stack{};
    stack.ss_sp = handler_stack, stack.ss_size = sizeof handler_stack;
    ::sigaltstack(&stack, nullptr);
    static bool installed = false;
    if (installed) return;
    installed = true;
    struct sigaction action {};
    action.sa_sigaction = on_fault, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &before);
}

}  // namespace emulation

// The scheduler: CUDA threads of a block are fibers, drawn at random between meeting points.
#include "fibers.hpp"

#include <sys/mman.h>

#include <boost/context/fiber.hpp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

extern "C" {  // of the sanitizers' runtimes; null without them
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned);
[[gnu::weak]] void __tsan_destroy_fiber(void*);
[[gnu::weak]] void __tsan_switch_to_fiber(void*, unsigned);
[[gnu::weak]] void __tsan_acquire(void*);
[[gnu::weak]] void __tsan_release(void*);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
}

namespace emulation {

Thread* self = nullptr;
Launched launched;

namespace {

namespace context = boost::context;
constexpr std::size_t stack_bytes = 64 << 10, most_shared_bytes = 227 * 1024;

struct Fiber : Thread {
    context::fiber fiber;
    void *tsan = nullptr, *asan = nullptr;
    const char* waits_for = nullptr;
    Where where;
    bool done = false;
};
/// Of different lengths: tops at equal distances would meet in the same sets of the caches.
constexpr std::size_t stack_size(unsigned i) {
    return stack_bytes - i % 61 * 320;
}

unsigned char* stacks = nullptr;
std::size_t mapped_bytes = 0;
Fiber fibers[most_threads];
unsigned live[most_threads / warp_lanes];
Fiber *ready[most_threads], *at_barrier[most_threads];
unsigned num_ready = 0, num_at_barrier = 0, live_threads = 0;
std::vector<std::unique_ptr<unsigned char[]>> shared_blocks;
context::fiber scheduler;
void *scheduler_tsan = nullptr, *scheduler_asan = nullptr;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
char end_of_launch;

Fiber& current() {
    return *static_cast<Fiber*>(self);
}

void make_ready(Fiber& f) {
    f.waits_for = nullptr;
    ready[num_ready++] = &f;
}

void to_scheduler(bool for_ever = false) {
    Fiber& me = current();
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(for_ever ? nullptr : &me.asan, scheduler_stack, scheduler_stack_bytes);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(scheduler_tsan, 1);  // 1: no order follows from it
    if (for_ever) return;
    scheduler = std::move(scheduler).resume();
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(me.asan, nullptr, nullptr);
}

void resume(Fiber& f) {
    self = &f;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(&scheduler_asan, stacks + f.number * stack_bytes,
                                       stack_size(f.number));
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(f.tsan, 1);
    f.fiber = std::move(f.fiber).resume();
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(scheduler_asan, &scheduler_stack, &scheduler_stack_bytes);
}

void open_barrier_if_full() {
    if (num_at_barrier == 0 || num_at_barrier < live_threads) return;
    for (unsigned i = 0; i < num_at_barrier; ++i) make_ready(*at_barrier[i]);
    num_at_barrier = 0;
}

void start(Fiber& f, unsigned block, const std::function<void()>& body) {
    const unsigned i = static_cast<unsigned>(&f - fibers);
    f.thread = {i}, f.block = {block}, f.number = i, f.lane = i % warp_lanes, f.done = false,
    f.waits_for = nullptr;
    live[i / warp_lanes] |= 1u << f.lane;
    if (__tsan_create_fiber) f.tsan = __tsan_create_fiber(0);
    struct Keep {
        void deallocate(context::stack_context&) noexcept {}
    };
    context::stack_context all;
    all.size = stack_size(i), all.sp = stacks + i * stack_bytes + stack_size(i);
    f.fiber = context::fiber(
        std::allocator_arg, context::preallocated(all.sp, all.size, all), Keep{}, [&](context::fiber&& from) {
            scheduler = std::move(from);
            if (__sanitizer_finish_switch_fiber)
                __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
            body();
            if (__tsan_release) __tsan_release(&end_of_launch);
            current().done = true;
            to_scheduler(true);
            return std::move(scheduler);
        });
    make_ready(f);
}

/// Under ThreadSanitizer stacks are mapped anew for each block, or their use by another thread looks like a
/// race.
void map_stacks(unsigned num_threads) {
    if (stacks && !__tsan_create_fiber) return;
    if (stacks) ::munmap(stacks, mapped_bytes);
    mapped_bytes = (__tsan_create_fiber ? num_threads : most_threads) * stack_bytes;
    stacks = static_cast<unsigned char*>(::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) error(Where::current(), "no memory for the stacks of %u threads", num_threads);
}

[[noreturn]] void stuck(unsigned block) {
    for (unsigned i = 0; i < launched.threads.x; ++i)
        if (!fibers[i].done)
            std::fprintf(stderr, "  thread %u waits in %s, %s:%u\n", i, fibers[i].waits_for,
                         fibers[i].where.file_name(), fibers[i].where.line());
    error(Where::current(), "block %u: no thread can go on (a barrier or collective that not all reach)",
          block);
}

void run_block(unsigned block, const std::function<void()>& body) {
    live_threads = launched.threads.x;
    map_stacks(live_threads);
    reset_warps();
    for (unsigned i = 0; i < launched.threads.x; ++i) start(fibers[i], block, body);
    while (live_threads > 0) {
        if (num_ready == 0) stuck(block);
        const unsigned i = draw(num_ready);
        Fiber& next = *ready[i];
        ready[i] = ready[--num_ready];
        resume(next);
        if (!next.done) continue;
        --live_threads;
        live[next.number / warp_lanes] &= ~(1u << next.lane);
        lane_exits(next.number / warp_lanes, next.lane);
        check_copies(next.number);
        open_barrier_if_full();
        if (__tsan_destroy_fiber) __tsan_destroy_fiber(next.tsan);
    }
}

std::uint64_t seed_of_environment() {
    const char* text = std::getenv("CUDA_EMULATION_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 1;
}

}  // namespace

unsigned draw(unsigned bound) {
    static std::uint64_t state = seed_of_environment() * 2654435761u + 1;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return static_cast<unsigned>((state >> 32) * bound >> 32);
}

void error(const Where& where, const char* format, ...) {
    va_list list;
    va_start(list, format);
    std::fprintf(stderr, "CUDA emulation: %s:%u: ", where.file_name(), where.line());
    std::vfprintf(stderr, format, list);
    std::fprintf(stderr, " (CUDA_EMULATION_SEED=%llu)\n",
                 static_cast<unsigned long long>(seed_of_environment()));
    std::_Exit(3);
}

void trap(const Where& where) {
    error(where, "thread %u of block %u stops the kernel (__trap)", self->thread.x, self->block.x);
}

void wait_for_others(const char* waits_for, const Where& where) {
    current().waits_for = waits_for, current().where = where;
    to_scheduler();
}

void make_ready(unsigned lane) {
    make_ready(fibers[current().number - current().lane + lane]);
}

unsigned live_lanes() {
    return live[current().number / warp_lanes];
}

unsigned warp_number() {
    return current().number / warp_lanes;
}

void release(void* place) {
    if (__tsan_release) __tsan_release(place);
}

void acquire(void* place) {
    if (__tsan_acquire) __tsan_acquire(place);
}

void* shared_memory(std::size_t bytes, const Where& where) {
    if (bytes != launched.shared_bytes)
        error(where, "%zu bytes of shared memory in a launch with %zu", bytes, launched.shared_bytes);
    return shared_blocks.back().get();
}

void barrier(const Where& where) {
    release(at_barrier);
    at_barrier[num_at_barrier++] = &current();
    current().waits_for = "__syncthreads", current().where = where;
    open_barrier_if_full();
    to_scheduler();
    acquire(at_barrier);
}

void run_kernel(std::int64_t blocks, int threads, std::size_t shared_bytes,
                const std::function<void()>& body) {
    if (blocks < 1 || blocks > 0x7FFFFFFF || threads < 1 || threads > static_cast<int>(most_threads) ||
        shared_bytes > most_shared_bytes)
        error(Where::current(), "a launch of %lld blocks of %d threads with %zu bytes of shared memory",
              static_cast<long long>(blocks), threads, shared_bytes);
    launched = {{static_cast<unsigned>(blocks)}, {static_cast<unsigned>(threads)}, shared_bytes};
    if (__tsan_get_current_fiber) scheduler_tsan = __tsan_get_current_fiber();
    for (unsigned block = 0; block < launched.blocks.x; ++block) {
        // Kept until the launch ends: ThreadSanitizer would take another block's use of the same bytes for a
        // race.
        if (__tsan_create_fiber || shared_blocks.empty())
            shared_blocks.push_back(std::make_unique_for_overwrite<unsigned char[]>(shared_bytes));
        std::memset(shared_blocks.back().get(), 0xFF, shared_bytes);
        run_block(block, body);
    }
    acquire(&end_of_launch);
    shared_blocks.clear();
    self = nullptr;
}

}  // namespace emulation

// The scheduler: between meeting points CUDA threads of a block are drawn at random.
#include "fibers.hpp"

#include <boost/context/fiber.hpp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "block_resources.hpp"
#include "faults.hpp"
#include "sanitizers.hpp"

namespace emulation {

Thread* self = nullptr;
Launched launched;

namespace {

namespace context = boost::context;

/// A stack on which CUDA threads run one after the other. A thread that waits keeps its worker; one that ends
/// gives it to a thread that has not begun, so those that never wait cost no switch. ThreadSanitizer takes a
/// worker for a thread: with it each serves one.
struct Worker;
struct Fiber : Thread {
    Worker* worker = nullptr;  // none: not begun, or done
    void* tsan = nullptr;
    const char* waits_for = nullptr;
    Where where;
    bool done = false;
};
struct Worker {
    context::fiber fiber;  // where it went away
    Fiber* thread = nullptr;
    const void* stack = nullptr;
    std::size_t stack_bytes = 0;
    void* asan = nullptr;
};
Fiber fibers[most_threads];
unsigned live[most_threads / warp_lanes];
Fiber *ready[most_threads], *at_barrier[most_threads];
unsigned num_ready = 0, num_at_barrier = 0, live_threads = 0;
unsigned barriers = 0;  // that the block has passed
const std::function<void()>* body_of_launch = nullptr;

// Never destroyed: at the end of the process workers still wait.
Worker* const workers = new Worker[most_threads];
Worker* idle[most_threads];
unsigned num_workers = 0, num_idle = 0;
Worker host;  // the thread of the process
Worker *running = &host, *previous = &host;
void* host_tsan = nullptr;
char start_of_block, end_of_launch;  // all blocks add to the end what they did

/// Threads as ThreadSanitizer knows them. A new one costs it 0.8 MB and half a millisecond, so a later launch
/// takes those of the ones before. Within a launch two CUDA threads that share one hide their race with each
/// other: none do until there are enough, and then pairs of different blocks, drawn at random.
class KnownThreads {
  public:
    void* take() {
        if (!idle_.empty()) return last_of(idle_);
        if (num_ >= enough && !used_.empty()) {
            std::swap(used_[draw(static_cast<unsigned>(used_.size()))], used_.back());
            return last_of(used_);
        }
        ++num_;
        return __tsan_create_fiber(0);
    }
    void give_back(void* thread) { used_.push_back(thread); }
    void end_of_launch() {
        idle_.insert(idle_.end(), used_.begin(), used_.end());
        used_.clear();
    }

  private:
    static constexpr std::size_t enough = 512;
    std::size_t num_ = 0;
    std::vector<void*> idle_, used_;  // used: in this launch, by blocks that have ended

    static void* last_of(std::vector<void*>& threads) {
        void* const thread = threads.back();
        threads.pop_back();
        return thread;
    }
};
KnownThreads known_threads;

Fiber& current() {
    return *static_cast<Fiber*>(self);
}

void make_ready(Fiber& f) {
    f.waits_for = nullptr;
    ready[num_ready++] = &f;
}

void* tsan_of(const Worker& worker) {
    return worker.thread ? worker.thread->tsan : host_tsan;
}

/// Before the process goes on in `next`; `keep`: where the one that goes away keeps what AddressSanitizer
/// knows.
void announce(Worker& next, void** keep) {
    previous = running, running = &next, self = next.thread;
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(keep, next.stack, next.stack_bytes);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(tsan_of(next), 1);  // 1: no order follows from it
}

/// In a worker that goes on, which came from `from`.
void arrive(context::fiber&& from) {
    previous->fiber = std::move(from);
    const bool from_host = previous == &host;
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(running->asan, from_host ? &host.stack : nullptr,
                                        from_host ? &host.stack_bytes : nullptr);
}

void go_to(Worker& next) {
    announce(next, &running->asan);
    arrive(std::move(next.fiber).resume());
}

void open_barrier_if_full() {
    if (num_at_barrier == 0 || num_at_barrier < live_threads) return;
    if (live_threads < launched.threads.x)
        error(at_barrier[0]->where, "%u of %u threads have exited before a barrier that all must reach",
              launched.threads.x - live_threads, launched.threads.x);
    ++barriers;
    for (unsigned i = 0; i < num_at_barrier; ++i) make_ready(*at_barrier[i]);
    num_at_barrier = 0;
}

[[noreturn]] void stuck() {
    const Fiber* before = nullptr;  // one line for all threads in a row that wait at one place
    for (unsigned i = 0; i < launched.threads.x; ++i) {
        const Fiber& f = fibers[i];
        if (f.done) continue;
        if (!before || before->waits_for != f.waits_for || !same_place(before->where, f.where))
            std::fprintf(stderr, "  from thread %u on: wait in %s, %s:%u\n", i, f.waits_for,
                         f.where.file_name(), f.where.line());
        before = &f;
    }
    error(Where::current(), "block %u: no thread can go on (a barrier or collective that not all reach)",
          fibers[0].block.x);
}

Fiber& draw_ready() {
    if (num_ready == 0) stuck();
    const unsigned i = draw(num_ready);
    Fiber& next = *ready[i];
    ready[i] = ready[--num_ready];
    return next;
}

void note_exit(Fiber& f) {
    f.done = true, f.worker = nullptr;
    --live_threads;
    live[f.number / warp_lanes] &= ~(1u << f.lane);
    lane_exits(f.number / warp_lanes, f.lane);
    check_copies(f.number);
    open_barrier_if_full();
}

Worker& worker_of(Fiber&);

/// What a worker does: CUDA threads, one after the other. Returns only under ThreadSanitizer.
context::fiber work(Worker& me) {
    for (;;) {
        acquire(&start_of_block);
        (*body_of_launch)();
        release(&end_of_launch);
        Fiber& ended = *me.thread;
        note_exit(ended);
        Fiber* const next = live_threads > 0 ? &draw_ready() : nullptr;
        if (with_thread_sanitizer()) {
            Worker& other = next ? worker_of(*next) : host;
            announce(other, nullptr);
            return std::move(other.fiber);
        }
        if (next && !next->worker) {
            self = me.thread = next, next->worker = &me;
            continue;
        }
        idle[num_idle++] = &me;
        go_to(next ? *next->worker : host);
    }
}

Worker& new_worker() {
    const unsigned i = num_workers++;
    Worker& worker = workers[i];
    worker.stack = stack_start(i), worker.stack_bytes = stack_length(i);
    struct Keep {
        void deallocate(context::stack_context&) noexcept {}
    };
    context::stack_context all;
    all.size = stack_length(i), all.sp = stack_start(i) + stack_length(i);
    worker.fiber = context::fiber(std::allocator_arg, context::preallocated(all.sp, all.size, all), Keep{},
                                  [&worker](context::fiber&& from) {
                                      arrive(std::move(from));
                                      return work(worker);
                                  });
    return worker;
}

Worker& worker_of(Fiber& f) {
    if (!f.worker) {
        f.worker = num_idle > 0 ? idle[--num_idle] : &new_worker();
        f.worker->thread = &f;
    }
    return *f.worker;
}

/// The calling CUDA thread waits, another one goes on.
void give_way() {
    Fiber& next = draw_ready();
    if (&next != self) go_to(worker_of(next));
}

void run_block(unsigned block) {
    live_threads = launched.threads.x, barriers = 0;
    provide_block(live_threads, launched.shared_bytes);
    reset_warps(live_threads);
    if (with_thread_sanitizer()) num_workers = 0;
    release(&start_of_block);
    for (unsigned i = 0; i < launched.threads.x; ++i) {
        Fiber& f = fibers[i];
        f.thread = {i}, f.block = {block}, f.number = i, f.lane = i % warp_lanes, f.done = false;
        live[i / warp_lanes] |= 1u << f.lane;
        if (with_thread_sanitizer()) f.tsan = known_threads.take();
        make_ready(f);
    }
    go_to(worker_of(draw_ready()));
    if (with_thread_sanitizer())
        for (unsigned i = 0; i < launched.threads.x; ++i) known_threads.give_back(fibers[i].tsan);
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
    std::fflush(stdout);  // what tests have said so far
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
    give_way();
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

void* shared_memory(std::size_t bytes, const Where& where) {
    if (bytes != launched.shared_bytes)
        error(where, "%zu bytes of shared memory in a launch with %zu", bytes, launched.shared_bytes);
    return shared_start();
}

bool in_shared_memory(const void* start, std::size_t bytes) {
    const auto* first = static_cast<const unsigned char*>(start);
    return first >= shared_start() && first + bytes <= shared_start() + launched.shared_bytes;
}

void barrier(const Where& where) {
    if (num_at_barrier > 0 && !same_place(at_barrier[0]->where, where))
        error(where, "thread %u comes to a barrier while thread %u waits at the one of line %u",
              current().number, at_barrier[0]->number, at_barrier[0]->where.line());
    void* const place = order_places() ? &order_places()->barrier[barriers % 2] : nullptr;
    release(place);
    at_barrier[num_at_barrier++] = &current();
    current().waits_for = "__syncthreads", current().where = where;
    open_barrier_if_full();
    give_way();
    acquire(place);
}

void check_launch(std::int64_t blocks, int threads, std::size_t shared_bytes) {
    if (blocks < 1 || blocks > 0x7FFFFFFF || threads < 1 || threads > static_cast<int>(most_threads) ||
        shared_bytes > most_shared_bytes)
        error(Where::current(), "a launch of %lld blocks of %d threads with %zu bytes of shared memory",
              static_cast<long long>(blocks), threads, shared_bytes);
}

void run_kernel(std::int64_t blocks, int threads, std::size_t shared_bytes,
                const std::function<void()>& body) {
    explain_faults();
    launched = {{static_cast<unsigned>(blocks)}, {static_cast<unsigned>(threads)}, shared_bytes};
    body_of_launch = &body;
    if (__tsan_get_current_fiber) host_tsan = __tsan_get_current_fiber();
    for (unsigned block = 0; block < launched.blocks.x; ++block) run_block(block);
    acquire(&end_of_launch);
    known_threads.end_of_launch();
    end_of_blocks();
    self = nullptr;
}

}  // namespace emulation

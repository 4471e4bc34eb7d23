// What the emulation tells the runtimes of sanitizers. A program without them has none of these functions,
// and then nothing is told.
#pragma once

#include <cstddef>

extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned);
[[gnu::weak]] void __tsan_switch_to_fiber(void*, unsigned);
[[gnu::weak]] void __tsan_acquire(void*);
[[gnu::weak]] void __tsan_release(void*);
[[gnu::weak]] void __asan_poison_memory_region(const volatile void*, std::size_t);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
}

namespace emulation {

inline bool with_thread_sanitizer() {
    return __tsan_create_fiber != nullptr;
}
inline bool with_sanitizer() {
    return with_thread_sanitizer() || __asan_poison_memory_region != nullptr;
}

/// What one thread did before release() comes before what another one does after acquire() of the same place.
inline void release(void* place) {
    if (__tsan_release) __tsan_release(place);
}
inline void acquire(void* place) {
    if (__tsan_acquire) __tsan_acquire(place);
}

}  // namespace emulation

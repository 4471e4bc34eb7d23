// What watches a test while it runs. ThreadSanitizer: each thread of a kernel then costs about half a
// millisecond, so that tests choose sizes of a few hundred elements: races do not hide in large ones.
// AddressSanitizer: it looks at accesses, so that one run of a kernel is enough.
#pragma once

extern "C" [[gnu::weak]] void* __tsan_get_current_fiber();
extern "C" [[gnu::weak]] void __asan_init();

namespace switchyard::test {

/// By ThreadSanitizer.
inline bool watched() {
    return __tsan_get_current_fiber != nullptr;
}
/// By either.
inline bool instrumented() {
    return watched() || __asan_init != nullptr;
}

}  // namespace switchyard::test

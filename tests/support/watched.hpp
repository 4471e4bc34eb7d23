// Whether ThreadSanitizer watches the threads of kernels. Each of them then costs about half a millisecond,
// so that tests choose sizes of a few hundred elements: races do not hide in large ones.
#pragma once

extern "C" [[gnu::weak]] void* __tsan_get_current_fiber();

namespace switchyard::test {

inline bool watched() {
    return __tsan_get_current_fiber != nullptr;
}

}  // namespace switchyard::test

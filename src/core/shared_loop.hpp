// Loops that OpenMP's threads share. They stay on the calling thread where there is no other one, where
// another shared loop runs them already, and where the work is too little to wake the others for: libgomp
// makes and frees a team even for one thread, which takes longer than many a small loop. What a thread throws
// is thrown by the loop when all threads are done (an exception that leaves an OpenMP region would end the
// process).
#pragma once

#include <cstdint>

namespace switchyard {

namespace detail {
/// Iterations [begin, end) of a loop with this body.
using LoopPart = void (*)(const void* body, std::int64_t begin, std::int64_t end);
void share(std::int64_t count, bool worth, LoopPart, const void* body);
void share_in_turns(std::int64_t count, bool worth, LoopPart, const void* body);

template <class F>
void run_part(const void* body, std::int64_t begin, std::int64_t end) {
    const F& f = *static_cast<const F*>(body);
    for (std::int64_t i = begin; i < end; ++i) f(i);
}
}  // namespace detail

/// f(i) for each i of [0, count): equal shares of consecutive i on all threads if the loop is worth them.
template <class F>
void for_shared(std::int64_t count, bool worth, const F& f) {
    detail::share(count, worth, detail::run_part<F>, &f);
}

/// The same for iterations that differ in length: a thread takes the next one when it is done with its last.
template <class F>
void for_in_turns(std::int64_t count, bool worth, const F& f) {
    detail::share_in_turns(count, worth, detail::run_part<F>, &f);
}

/// The number of threads that such a loop of many iterations would run on here.
int loop_threads(bool worth);

}  // namespace switchyard

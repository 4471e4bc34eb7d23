#include "core/shared_loop.hpp"

#include <omp.h>

#include "core/first_exception.hpp"

namespace switchyard {

int loop_threads(bool worth) {
    return worth && !omp_in_parallel() ? omp_get_max_threads() : 1;
}

namespace detail {

void share(std::int64_t count, bool worth, LoopPart part, const void* body) {
    FirstException failure;
    if (count <= 1 || loop_threads(worth) == 1) {
        failure.guard([&] { part(body, 0, count); });
    } else {
#pragma omp parallel
        {
            const std::int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
            const std::int64_t each = count / threads, longer = count % threads;
            const std::int64_t begin = each * thread + (thread < longer ? thread : longer);
            failure.guard([&] { part(body, begin, begin + each + (thread < longer)); });
        }
    }
    failure.rethrow();
}

void share_in_turns(std::int64_t count, bool worth, LoopPart part, const void* body) {
    FirstException failure;
    if (count <= 1 || loop_threads(worth) == 1) {
        failure.guard([&] { part(body, 0, count); });
    } else {
#pragma omp parallel for schedule(dynamic, 1)
        for (std::int64_t i = 0; i < count; ++i) failure.guard([&] { part(body, i, i + 1); });
    }
    failure.rethrow();
}

}  // namespace detail
}  // namespace switchyard

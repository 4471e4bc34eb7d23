// Every OpenMP thread has a control register of its own, and each is set.
#include "kernels/subnormals.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace switchyard::kernels {
namespace {

#if defined(__x86_64__)
constexpr std::uint64_t flush = 0x8040;  // MXCSR: FTZ, DAZ
std::uint64_t control() {
    return _mm_getcsr();
}
void set_control(std::uint64_t value) {
    _mm_setcsr(static_cast<unsigned>(value));
}
#elif defined(__aarch64__)
constexpr std::uint64_t flush = std::uint64_t{1} << 24;  // FPCR: FZ
std::uint64_t control() {
    std::uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
}
void set_control(std::uint64_t value) {
    asm volatile("msr fpcr, %0" : : "r"(value));
}
#else
constexpr std::uint64_t flush = 0;
std::uint64_t control() {
    return 0;
}
void set_control(std::uint64_t) {}
#endif

void set_on_all_threads(std::uint64_t value) {
#pragma omp parallel
    set_control(value);
}

}  // namespace

FlushSubnormals::FlushSubnormals() : before_(control()) {
    set_on_all_threads(before_ | flush);
}

FlushSubnormals::~FlushSubnormals() {
    set_on_all_threads(before_);
}

bool can_flush_subnormals() {
    return flush != 0;
}

}  // namespace switchyard::kernels

// What AddressSanitizer is told in every program of a sanitizer build; the environment's ASAN_OPTIONS come on top. Open MPI
// keeps memory of components that it has unloaded, which looks like leaks. A refused allocation returns null, as it does
// without. Undefined behaviour ends in an illegal instruction, whose place is printed. A test may preload a library, which is
// then the first.
extern "C" const char* __asan_default_options() {
    return "detect_leaks=0:allocator_may_return_null=1:handle_sigill=1:verify_asan_link_order=0";
}

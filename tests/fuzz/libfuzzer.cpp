// The same targets for libFuzzer (preset `fuzz`, with clang). SWITCHYARD_FUZZ_TARGET names one; its seeds are
// written to the folder SWITCHYARD_FUZZ_SEEDS if that is set.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "core/error.hpp"
#include "fuzz/targets.hpp"
#include "io/files/files.hpp"
#include "io/files/structure_reader.hpp"

namespace {

const switchyard::fuzz::Target* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    if (int code = 0; switchyard::serve_structure(*argc, *argv, code)) std::_Exit(code);
    const char* name = std::getenv("SWITCHYARD_FUZZ_TARGET");
    target = &switchyard::fuzz::target_of(name ? name : "");
    const char* folder = std::getenv("SWITCHYARD_FUZZ_SEEDS");
    if (!folder) return 0;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const std::string& seed : target->seeds())
        switchyard::write_file(fmt::format("{}/seed{}", folder, number++), seed);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, std::size_t count) {
    try {
        target->run({reinterpret_cast<const char*>(bytes), count});
    } catch (const switchyard::UserError&) {  // the right answer to a bad input
    }
    return 0;
}

// Full-rank training: every linear stays dense, so no hook is needed.
#include "methods/registry.hpp"

namespace switchyard::methods {

MethodEntry full() {
    return {.options = {.name = "full", .help = "full-rank training of every weight"},
            .create = [](const Config&) { return std::make_unique<Method>(); }};
}

}  // namespace switchyard::methods

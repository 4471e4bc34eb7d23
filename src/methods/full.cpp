// Full-rank training: every linear stays dense, so no hook is needed.
#include "methods/registry.hpp"

namespace switchyard::methods {

MethodEntry full() {
    return {.options = {.name = "full", .help = "full-rank training of every weight"},
            .create = [](const Config&) { return std::make_unique<Method>(); },
            .guide = {.equation = "W <- AdamW(W, G)",
                      .source = "Loshchilov and Hutter 2017, arXiv 1711.05101",
                      .use = "the yardstick; where memory and network suffice",
                      .validated = "PyTorch's losses and gradient norms in f64 (1e-9)"}};
}

}  // namespace switchyard::methods

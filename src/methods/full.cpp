// Full-rank training: every linear stays dense.
#include "methods/registry.hpp"

namespace switchyard::methods {
namespace {

class Full : public Method {
  public:
    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) override { return nullptr; }
};

}  // namespace

MethodEntry full() {
    return {{"full", "full-rank training of every weight", {}},
            [](const Config&) -> std::unique_ptr<Method> { return std::make_unique<Full>(); }};
}

}  // namespace switchyard::methods

#include "core/processor.hpp"

#include "core/error.hpp"
#include "cuda/runtime.hpp"

namespace switchyard::backend {

Processor processor() {
    try {
        return {cuda::device_properties().name, true, cuda::device_number(), {}};
    } catch (const UserError& error) {
        return {{}, true, 0, error.what()};
    }
}

}  // namespace switchyard::backend

#include "core/processor.hpp"

#include "core/host.hpp"

namespace switchyard::backend {

Processor processor() {
    return {cpu_name(), false, 0, {}};
}

}  // namespace switchyard::backend

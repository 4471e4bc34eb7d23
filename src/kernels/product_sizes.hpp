// The sizes of a product, for the back ends, which compute it.
#pragma once

#include "kernels/matmul.hpp"

namespace switchyard::kernels {

/// op(a) is (m, k), op(b) is (k, n), c is (m, n).
struct ProductSizes {
    std::int64_t m = 0, n = 0, k = 0;
};

/// Throws InternalError on shapes or dtypes that do not fit.
ProductSizes product_sizes(const Matmul&);

}  // namespace switchyard::kernels

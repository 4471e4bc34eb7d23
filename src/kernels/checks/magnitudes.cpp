#include "kernels/checks/magnitudes.hpp"

#include "core/error.hpp"

namespace switchyard::kernels {
namespace {

bool has_magnitude_bytes(DType dtype) {
    return dtype == DType::f32 || dtype == DType::f64;
}

void check_found(std::int64_t items, Tensor found) {
    check("bytes found and ranks", found, DType::i64, {items, 2});
}

}  // namespace

DType check_histogram(std::span<const RowPart> parts, int byte, Tensor found, Tensor counts) {
    const auto items = static_cast<std::int64_t>(parts.size());
    check_found(items, found);
    check("histograms", counts, DType::f64, {items, magnitude_bins});
    const DType dtype = parts.empty() ? DType::f32 : parts.front().matrix.dtype();
    for (const RowPart& part : parts) {
        check_part(part);
        internal_check(has_magnitude_bytes(dtype) && part.matrix.dtype() == dtype,
                       "magnitudes of {} beside {}", name_of(part.matrix.dtype()), name_of(dtype));
    }
    internal_check(byte >= 0 && byte < magnitude_bytes(dtype), "byte {} of {}", byte, name_of(dtype));
    return dtype;
}

void check_selection(Tensor counts, Tensor found) {
    check_matrix("bytes found and ranks", found);
    check_found(found.dim(0), found);
    check("histograms", counts, DType::f64, {found.dim(0), magnitude_bins});
}

void check_dropped(std::span<const Dropped> items, Tensor limits) {
    check_found(static_cast<std::int64_t>(items.size()), limits);
    for (const Dropped& x : items) {
        check_part(x.values), check_part(x.keys);
        internal_check(x.values.rows.count == x.keys.rows.count && x.values.width == x.keys.width &&
                           has_magnitude_bytes(x.values.matrix.dtype()) &&
                           has_magnitude_bytes(x.keys.matrix.dtype()),
                       "{} rows of {} {} by {} rows of {} {}", x.values.rows.count, x.values.width,
                       name_of(x.values.matrix.dtype()), x.keys.rows.count, x.keys.width,
                       name_of(x.keys.matrix.dtype()));
    }
}

}  // namespace switchyard::kernels

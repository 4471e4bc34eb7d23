// On the CPU both sides are host memory.
#include "kernels/transfer.hpp"

#include <cstring>

#include "core/calls.hpp"
#include "kernels/checks/rows.hpp"
#include "kernels/checks/tensors.hpp"

namespace switchyard::kernels {
namespace {

/// f(rectangle, where it lies among the packed rows).
template <class F>
void with_packed(std::span<const RowPart> parts, DType dtype, void* host, F f) {
    std::int64_t rows = 0, row = 0;
    for (const RowPart& part : parts) rows += part.rows.count;
    const Tensor packed(host, dtype, {rows, parts.empty() ? 0 : parts.front().width});
    for (const RowPart& part : parts) {
        check_packed(parts, part);
        f(part, {packed, Rows::range(row, part.rows.count), 0, part.width});
        row += part.rows.count;
    }
}

}  // namespace

void upload(const void* host, Tensor tensor) {
    count_call(Call::upload);
    if (tensor.empty()) return;
    check_owned(tensor);
    std::memcpy(tensor.raw(), host, tensor.bytes());
}

void download(Tensor tensor, void* host) {
    count_call(Call::host_read);
    if (tensor.empty()) return;
    check_owned(tensor);
    std::memcpy(host, tensor.raw(), tensor.bytes());
}

void download_rows(std::span<const RowPart> parts, DType dtype, void* host) {
    count_call(Call::host_read);
    RowBatch batch;
    with_packed(parts, dtype, host,
                [&](const RowPart& part, const RowPart& packed) { batch.copy(part, packed); });
    batch.run();
}

void upload_rows(const void* host, DType dtype, std::span<const RowPart> parts) {
    count_call(Call::upload);
    RowBatch batch;
    with_packed(parts, dtype, const_cast<void*>(host),
                [&](const RowPart& part, const RowPart& packed) { batch.copy(packed, part); });
    batch.run();
}

}  // namespace switchyard::kernels

// The part that all back ends share: batches of rows, collected on the host.
#include "kernels/rows.hpp"

namespace switchyard::kernels {

RowPart whole_rows(Tensor tensor, const Rows& rows) {
    const Tensor matrix = tensor.shape().rank() == 1 ? tensor.reshape({tensor.dim(0), 1}) : tensor;
    return {matrix, rows, 0, matrix.dim(1)};
}

RowPart whole_rows(Tensor tensor) {
    return whole_rows(tensor, Rows::range(0, tensor.dim(0)));
}

void RowBatch::run() {
    if (!tasks_.empty()) run_rows(tasks_);
    tasks_.clear();
}

void copy_rows(const RowPart& from, const RowPart& to) {
    RowBatch batch;
    batch.copy(from, to);
    batch.run();
}

}  // namespace switchyard::kernels

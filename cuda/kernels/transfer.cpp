// Copies between host arrays and device memory, by way of pinned memory. After an upload the host goes on at
// once and may reuse its array. Downloads run on the copy stream: while the host empties one part of pinned
// memory, the device fills others, and kernels of the compute stream collect the rows of the parts after it.
#include "kernels/transfer.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "core/calls.hpp"
#include "cuda/pinned.hpp"
#include "cuda/runtime.hpp"
#include "cuda/waiting.hpp"
#include "cuda/workspace.hpp"
#include "kernels/checks/rows.hpp"

namespace switchyard::kernels {
namespace {

cudaEvent_t new_event() {
    cudaEvent_t event = nullptr;
    SWITCHYARD_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/// Pinned memory in parts, which are used in turn. Never destroyed: the driver may have ended before.
template <int count>
struct Parts {
    Parts(std::size_t all_bytes, const char* purpose)
        : memory(cuda::pinned_memory(all_bytes, purpose)), bytes(all_bytes / count) {
        for (cudaEvent_t& event : copied) event = new_event();
    }
    std::byte* operator[](int part) const { return memory + static_cast<std::size_t>(part) * bytes; }

    std::byte* memory;
    std::size_t bytes;          // of a part
    cudaEvent_t copied[count];  // the last copy from or to a part
};

/// Uploads fill one part after the other, several small ones share one, and a part is used again when all
/// copies from it are done.
class Uploads {
  public:
    void add(const std::byte* from, std::byte* to, std::size_t bytes) {
        while (bytes > 0) {
            if (used_ == parts_.bytes) next_part();
            const std::size_t now = std::min(bytes, parts_.bytes - used_);
            std::byte* staged = parts_[part_] + used_;
            std::memcpy(staged, from, now);
            SWITCHYARD_CUDA(cudaMemcpyAsync(to, staged, now, cudaMemcpyHostToDevice, cuda::compute_stream()));
            used_ += now, from += now, to += now, bytes -= now;
        }
    }

  private:
    void next_part() {
        SWITCHYARD_CUDA(cudaEventRecord(parts_.copied[part_], cuda::compute_stream()));
        part_ = (part_ + 1) % num_parts, used_ = 0;
        cuda::wait_for(parts_.copied[part_]);
    }

    static constexpr int num_parts = 4;
    Parts<num_parts> parts_{cuda::pinned_for_uploads, "uploads"};
    int part_ = 0;
    std::size_t used_ = 0;
};

void upload_bytes(const std::byte* host, std::byte* to, std::size_t bytes) {
    static auto* const uploads = new Uploads;
    uploads->add(host, to, bytes);
}

constexpr int num_download_parts = 8;
constexpr std::size_t download_part_bytes = cuda::pinned_for_downloads / num_download_parts;

/// A download in parts, which reach their places in host memory at the latest in finish().
class Download {
  public:
    /// Copies go on when the compute stream has done what was called there so far.
    void follow_compute() {
        static const cudaEvent_t called = new_event();
        SWITCHYARD_CUDA(cudaEventRecord(called, cuda::compute_stream()));
        SWITCHYARD_CUDA(cudaStreamWaitEvent(cuda::copy_stream(), called));
    }
    /// At most a part. The event passes when `from` may be overwritten.
    cudaEvent_t start(const std::byte* from, std::byte* to, std::size_t bytes) {
        if (under_way_.size() == num_download_parts) finish_one();
        const int part = next_++ % num_download_parts;
        SWITCHYARD_CUDA(
            cudaMemcpyAsync(parts()[part], from, bytes, cudaMemcpyDeviceToHost, cuda::copy_stream()));
        SWITCHYARD_CUDA(cudaEventRecord(parts().copied[part], cuda::copy_stream()));
        under_way_.push_back({part, to, bytes});
        return parts().copied[part];
    }
    void finish() {
        while (!under_way_.empty()) finish_one();
    }

  private:
    struct Copy {
        int part = 0;
        std::byte* to = nullptr;
        std::size_t bytes = 0;
    };
    static Parts<num_download_parts>& parts() {
        static auto* const all = new Parts<num_download_parts>(cuda::pinned_for_downloads, "downloads");
        return *all;
    }
    void finish_one() {
        const Copy copy = under_way_.front();
        under_way_.pop_front();
        cuda::wait_for(parts().copied[copy.part]);
        std::memcpy(copy.to, parts()[copy.part], copy.bytes);
    }

    std::deque<Copy> under_way_;
    int next_ = 0;
};

void download_bytes(Download& download, const std::byte* from, std::byte* to, std::size_t bytes) {
    for (std::size_t begin = 0; begin < bytes; begin += download_part_bytes)
        download.start(from + begin, to + begin, std::min(download_part_bytes, bytes - begin));
}

/// Rectangles whose packed rows are at most a part. A row that is longer is alone and cut into columns.
struct Batch {
    std::vector<RowPart> parts;
    std::int64_t rows = 0, width = 0;

    std::size_t bytes(DType dtype) const { return static_cast<std::size_t>(rows * width) * size_of(dtype); }
    Tensor packed(std::byte* memory, DType dtype) const { return {memory, dtype, {rows, width}}; }
    /// The values where they lie, if they are one piece of memory of this type; else nothing.
    std::byte* in_place(DType dtype) const {
        const RowPart& part = parts.front();
        if (parts.size() > 1 || !is_contiguous(part) || part.matrix.dtype() != dtype) return nullptr;
        const std::int64_t first = part.rows.first * part.matrix.dim(1) + part.column;
        return part.matrix.data<std::byte>() + static_cast<std::size_t>(first) * size_of(dtype);
    }
};

/// Calls work(batch) for all rectangles in their order.
template <class Work>
void in_batches(std::span<const RowPart> parts, DType dtype, Work work) {
    const std::int64_t most = download_part_bytes / size_of(dtype);  // elements
    Batch batch;
    const auto flush = [&] {
        if (batch.rows > 0) work(batch);
        batch = {};
    };
    const auto add = [&](const RowPart& part) {
        batch.parts.push_back(part);
        batch.rows += part.rows.count;
        batch.width = part.width;
    };
    for (const RowPart& part : parts) {
        check_packed(parts, part);
        if (part.width == 0) continue;
        for (std::int64_t row = 0; row < part.rows.count;) {
            const std::int64_t first = part.rows.first + row;
            if (part.width > most) {
                for (std::int64_t column = 0; column < part.width; column += most) {
                    add({part.matrix, Rows::range(first, 1), part.column + column,
                         std::min(most, part.width - column)});
                    flush();
                }
                ++row;
                continue;
            }
            const std::int64_t fitting = std::min(part.rows.count - row, most / part.width - batch.rows);
            if (fitting > 0) add({part.matrix, Rows::range(first, fitting), part.column, part.width});
            row += fitting;
            if (row < part.rows.count) flush();
        }
    }
    flush();
}

/// The rows of a batch, each rectangle beside its place among the packed rows.
template <class Add>
void with_packed(const Batch& batch, Tensor packed, Add add) {
    std::int64_t row = 0;
    for (const RowPart& part : batch.parts) {
        add(part, RowPart{packed, Rows::range(row, part.rows.count), 0, part.width});
        row += part.rows.count;
    }
}

}  // namespace

void upload(const void* host, Tensor tensor) {
    count_call(Call::upload);
    if (tensor.empty()) return;
    check_owned(tensor);
    upload_bytes(static_cast<const std::byte*>(host), tensor.data<std::byte>(), tensor.bytes());
}

void download(Tensor tensor, void* host) {
    count_call(Call::host_read);
    if (tensor.empty()) return;
    check_owned(tensor);
    Download download;
    download.follow_compute();
    download_bytes(download, tensor.data<std::byte>(), static_cast<std::byte*>(host), tensor.bytes());
    download.finish();
}

/// Rows that are collected take turns in two halves of the workspace, which copies of rows do not use.
void download_rows(std::span<const RowPart> parts, DType dtype, void* host) {
    count_call(Call::host_read);
    auto* to = static_cast<std::byte*>(host);
    cudaEvent_t copied[2] = {};
    int half = 0;
    Download download;
    download.follow_compute();
    in_batches(parts, dtype, [&](const Batch& batch) {
        const std::size_t bytes = batch.bytes(dtype);
        const std::byte* from = batch.in_place(dtype);
        if (from) {
            download.start(from, to, bytes);
        } else {
            auto* const memory = static_cast<std::byte*>(cuda::workspace(2 * download_part_bytes)) +
                                 half * download_part_bytes;
            if (copied[half]) SWITCHYARD_CUDA(cudaStreamWaitEvent(cuda::compute_stream(), copied[half]));
            RowBatch collect;
            with_packed(batch, batch.packed(memory, dtype),
                        [&](const RowPart& part, const RowPart& packed) { collect.copy(part, packed); });
            collect.run();
            download.follow_compute();
            copied[half] = download.start(memory, to, bytes);
            half = 1 - half;
        }
        to += bytes;
    });
    download.finish();
}

/// All of it on the compute stream.
void upload_rows(const void* host, DType dtype, std::span<const RowPart> parts) {
    count_call(Call::upload);
    const auto* from = static_cast<const std::byte*>(host);
    in_batches(parts, dtype, [&](const Batch& batch) {
        const std::size_t bytes = batch.bytes(dtype);
        if (std::byte* const to = batch.in_place(dtype)) {
            upload_bytes(from, to, bytes);
        } else {
            auto* const memory = static_cast<std::byte*>(cuda::workspace(download_part_bytes));
            upload_bytes(from, memory, bytes);
            RowBatch distribute;
            with_packed(batch, batch.packed(memory, dtype),
                        [&](const RowPart& part, const RowPart& packed) { distribute.copy(packed, part); });
            distribute.run();
        }
        from += bytes;
    });
}

}  // namespace switchyard::kernels

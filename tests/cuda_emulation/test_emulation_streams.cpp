// Streams, events, copies and errors of the emulated runtime, against the CUDA Runtime API's document.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "emulation.hpp"

namespace {

constexpr int count = 256;

/// `count` floats of device memory, and what the host does with them.
class Numbers {
  public:
    Numbers() { EXPECT_EQ(cudaMalloc(&memory_, count * sizeof(float)), cudaSuccess); }
    ~Numbers() {
        cudaDeviceSynchronize();
        cudaFree(memory_);
    }
    float* get() const { return static_cast<float*>(memory_); }

    void fill(cudaStream_t stream, float value) const {
        float* const x = get();
        emulation::enqueue_kernel(stream, 1, count, 0, [=] { x[threadIdx.x] = value; });
    }
    void add(cudaStream_t stream, const Numbers& other) const {
        float *const x = get(), *const y = other.get();
        emulation::enqueue_kernel(stream, 1, count, 0, [=] { x[threadIdx.x] += y[threadIdx.x]; });
    }
    std::vector<float> read(cudaStream_t stream) const {
        std::vector<float> out(count);
        EXPECT_EQ(cudaMemcpyAsync(out.data(), get(), count * sizeof(float), cudaMemcpyDeviceToHost, stream),
                  cudaSuccess);
        return out;
    }

  private:
    void* memory_ = nullptr;
};

cudaStream_t new_stream() {
    cudaStream_t stream = nullptr;
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    return stream;
}

cudaEvent_t new_event(unsigned flags = cudaEventDefault) {
    cudaEvent_t event = nullptr;
    EXPECT_EQ(cudaEventCreateWithFlags(&event, flags), cudaSuccess);
    return event;
}

struct Pinned {
    Pinned() { EXPECT_EQ(cudaMallocHost(&memory, count * sizeof(float)), cudaSuccess); }
    ~Pinned() { cudaFreeHost(memory); }
    float* get() const { return static_cast<float*>(memory); }
    void* memory = nullptr;
};

TEST(EmulatedStream, RunsWhenItIsWaitedFor) {
    const cudaStream_t stream = new_stream();
    int done = 0;
    for (int i = 0; i < 3; ++i) emulation::enqueue_work(stream, [&done, i] { done = 10 * done + i; });
    EXPECT_EQ(done, 0);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(done, 12) << "in order";
}

TEST(EmulatedStream, AQueryMovesItOn) {
    const cudaStream_t stream = new_stream();
    int done = 0;
    for (int i = 0; i < 3; ++i) emulation::enqueue_work(stream, [&done] { ++done; });
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
    EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    }
    cudaGetLastError();
    EXPECT_EQ(done, 3);
}

TEST(EmulatedStream, NewMemoryIsFullOfNaNs) {
    const Numbers x;
    for (float value : x.read(new_stream())) EXPECT_TRUE(std::isnan(value));
}

TEST(EmulatedStream, AnEventOrdersTwoStreams) {
    const cudaStream_t first = new_stream(), second = new_stream();
    const cudaEvent_t event = new_event(cudaEventDisableTiming);
    for (int i = 0; i < 20; ++i) {
        const Numbers x, y;
        y.fill(second, 1);
        x.fill(first, static_cast<float>(i));
        EXPECT_EQ(cudaEventRecord(event, first), cudaSuccess);
        x.fill(first, -1);  // which need not have happened
        EXPECT_EQ(cudaStreamWaitEvent(second, event), cudaSuccess);
        y.add(second, x);
        const float seen = y.read(second)[0];
        EXPECT_TRUE(seen == 1.0f + static_cast<float>(i) || seen == 0.0f) << seen;
    }
}

TEST(EmulatedStream, WithoutAnEventAnotherStreamIsUsuallyLate) {
    const cudaStream_t first = new_stream(), second = new_stream();
    int late = 0;
    for (int i = 0; i < 100; ++i) {
        const Numbers x;
        x.fill(first, 1);
        late += std::isnan(x.read(second)[0]);
        cudaDeviceSynchronize();
    }
    EXPECT_GT(late, 50);
    EXPECT_LT(late, 100) << "and now and then it runs ahead";
}

TEST(EmulatedStream, AWaitIsForTheRecordBeforeIt) {
    const cudaStream_t first = new_stream(), second = new_stream();
    const cudaEvent_t event = new_event();
    int done = 0;
    EXPECT_EQ(cudaStreamWaitEvent(second, event), cudaSuccess) << "never recorded: nothing to wait for";
    EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event, first), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(second, event), cudaSuccess);
    emulation::enqueue_work(first, [&done] { done = 1; });
    EXPECT_EQ(cudaEventRecord(event, first), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(second), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
    EXPECT_EQ(done, 1);
}

TEST(EmulatedStream, ElapsedTimesAreOfEventsThatHavePassed) {
    const cudaStream_t stream = new_stream();
    const cudaEvent_t start = new_event(), end = new_event(), untimed = new_event(cudaEventDisableTiming);
    float milliseconds = -1;
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
    for (cudaEvent_t event : {start, untimed}) cudaEventRecord(event, stream);
    emulation::enqueue_work(stream, [] { ::usleep(3000); });
    cudaEventRecord(end, stream);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
    cudaEventSynchronize(end);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, untimed), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
    EXPECT_GE(milliseconds, 3);
    cudaGetLastError();
}

TEST(EmulatedCopy, PageableMemoryIsReadAtTheCall) {
    const cudaStream_t stream = new_stream();
    const Numbers x;
    std::vector<float> host(count, 1);
    cudaMemcpyAsync(x.get(), host.data(), count * sizeof(float), cudaMemcpyHostToDevice, stream);
    host.assign(count, 2);
    EXPECT_EQ(x.read(stream)[count - 1], 1) << "and a copy to pageable memory returns when it is done";
}

TEST(EmulatedCopy, PinnedMemoryIsReadWhenTheStreamComesToIt) {
    const cudaStream_t stream = new_stream();
    const Numbers x;
    const Pinned host;
    host.get()[0] = 1;
    cudaMemcpyAsync(x.get(), host.get(), sizeof(float), cudaMemcpyHostToDevice, stream);
    host.get()[0] = 2;
    EXPECT_EQ(x.read(stream)[0], 2);
    x.fill(stream, 3);
    cudaMemcpyAsync(host.get(), x.get(), sizeof(float), cudaMemcpyDeviceToHost, stream);
    EXPECT_EQ(host.get()[0], 2) << "a copy to pinned memory returns at once";
    cudaStreamSynchronize(stream);
    EXPECT_EQ(host.get()[0], 3);
}

TEST(EmulatedCopy, PlacesOfTheWrongKindAreRefused) {
    const cudaStream_t stream = new_stream();
    const Numbers x;
    std::vector<float> host(2 * count);
    const std::size_t bytes = count * sizeof(float);
    const auto copy = [&](void* to, const void* from, std::size_t n, cudaMemcpyKind kind) {
        const cudaError_t code = cudaMemcpyAsync(to, from, n, kind, stream);
        EXPECT_EQ(cudaGetLastError(), code);
        return code;
    };
    EXPECT_EQ(copy(host.data(), x.get(), bytes, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(copy(x.get(), host.data(), bytes + 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(copy(x.get(), host.data(), bytes, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(copy(x.get(), x.get(), bytes, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(host.data(), 0, 4, stream), cudaErrorInvalidValue);
    cudaGetLastError();
    EXPECT_EQ(copy(nullptr, nullptr, 0, cudaMemcpyDeviceToHost), cudaSuccess) << "nothing is copied";
}

TEST(EmulatedDevice, MemoryEnds) {
    ::setenv("CUDA_EMULATION_MEMORY", "1000000", 1);
    void *most = nullptr, *more = nullptr;
    std::size_t free = 0, total = 0;
    EXPECT_EQ(cudaMalloc(&most, 900000), cudaSuccess);
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    EXPECT_EQ(free, 100000u);
    EXPECT_EQ(total, 1000000u);
    EXPECT_EQ(cudaMalloc(&more, 100001), cudaErrorMemoryAllocation);
    EXPECT_EQ(more, nullptr);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaFree(most), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&more, 100001), cudaSuccess);
    EXPECT_EQ(cudaFree(static_cast<char*>(more) + 1), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(more), cudaSuccess);
    ::unsetenv("CUDA_EMULATION_MEMORY");
    cudaGetLastError();
}

TEST(EmulatedDeviceDeathTest, FreeingMemoryDoesNotWaitForKernels) {
    const auto free_too_soon = [] {
        const cudaStream_t stream = new_stream();
        const Numbers x;
        x.fill(stream, 1);
        cudaFree(x.get());
        cudaStreamSynchronize(stream);
    };
    EXPECT_DEATH(free_too_soon(),
                 "of block 0 touches device memory that was freed: byte .* of a block of 1024");
}

TEST(EmulatedDevice, NoneCanBeThere) {
    int devices = -1;
    ::setenv("CUDA_EMULATION_DEVICES", "0", 1);
    EXPECT_EQ(cudaGetDeviceCount(&devices), cudaErrorNoDevice);
    EXPECT_EQ(devices, 0);
    EXPECT_EQ(cudaSetDevice(0), cudaErrorNoDevice);
    ::setenv("CUDA_EMULATION_DEVICES", "2", 1);
    EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
    EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaSetDevice(-1), cudaErrorInvalidDevice);
    ::unsetenv("CUDA_EMULATION_DEVICES");
    EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
    cudaGetLastError();
}

}  // namespace

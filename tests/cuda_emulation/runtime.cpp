// The CUDA runtime of the emulation. A stream is a queue that runs when the host waits for it, and no further
// than it must; sometimes another stream runs ahead as far as events allow. So whatever a missing event
// leaves to chance goes wrong soon. Copies from pinned memory read it when the stream comes to them.
#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "device_memory.hpp"
#include "fibers.hpp"
#include "stream_log.hpp"

namespace {

using Work = std::function<void()>;

/// Work that may be left undone before a stream runs without being waited for.
constexpr std::size_t most_waiting = 2048;

struct Point {
    EmulatedStream* stream = nullptr;
    std::uint64_t position = 0;  // the point has passed when the stream has done this much
    double time_s = 0;
};

std::recursive_mutex mutex;
int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
std::map<const unsigned char*, std::size_t> pinned;

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

cudaError_t result(cudaError_t code) {
    if (code != cudaSuccess) last_error = code;
    return code;
}

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
    const char* text = std::getenv(variable);
    return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

struct EmulatedStream {
    std::deque<Work> waiting;
    std::uint64_t done = 0;
    bool running = false;
    std::uint64_t end() const { return done + (running ? 1 : 0) + waiting.size(); }
};

struct EmulatedEvent {
    std::shared_ptr<Point> point;  // of the last record; null: never recorded, which counts as passed
    bool timed = false;
};

namespace {

std::vector<EmulatedStream*>& streams() {
    static auto* const all = new std::vector<EmulatedStream*>;
    return *all;
}

/// Runs a stream until it has done `position`.
void run_to(EmulatedStream& stream, std::uint64_t position) {
    while (stream.done < position && !stream.waiting.empty()) {
        if (stream.running) emulation::error(emulation::Where::current(), "a stream waits for itself");
        const Work work = std::move(stream.waiting.front());
        stream.waiting.pop_front();
        stream.running = true;
        work();
        stream.running = false;
        ++stream.done;
    }
}

/// What the host waits for happens; now and then another stream has run ahead by then.
void reach(EmulatedStream& stream, std::uint64_t position) {
    if (stream.done >= position) return;
    const emulation::OpenMemory open;
    for (EmulatedStream* other : streams())
        if (other != &stream && !other->running && !other->waiting.empty() && emulation::draw(4) == 0)
            run_to(*other, other->done + 1 + emulation::draw(static_cast<unsigned>(other->waiting.size())));
    run_to(stream, position);
}

std::string place(const EmulatedStream& stream, std::uint64_t position) {
    const auto found = std::find(streams().begin(), streams().end(), &stream);
    return std::to_string(found - streams().begin()) + " " + std::to_string(position);
}

void log_host(const EmulatedStream& stream, std::uint64_t position) {
    if (emulation::logging_streams() && stream.done < position)
        emulation::log_streams("host " + place(stream, position));
}

void enqueue(cudaStream_t stream, const std::string& name, Work work) {
    const std::lock_guard lock(mutex);
    if (!stream) emulation::error(emulation::Where::current(), "work on the default stream");
    if (emulation::logging_streams()) emulation::log_streams(place(*stream, stream->end() + 1) + " " + name);
    stream->waiting.push_back(std::move(work));
    if (stream->waiting.size() > most_waiting && !stream->running)
        reach(*stream, stream->done + most_waiting / 2);
}

/// False for memory that is partly pinned, too: a copy of it is an error.
bool is_pinned(const void* start, std::size_t bytes) {
    const auto* first = static_cast<const unsigned char*>(start);
    const auto after = pinned.upper_bound(first);
    return after != pinned.begin() && first + bytes <= std::prev(after)->first + std::prev(after)->second;
}

}  // namespace

void emulation::enqueue_kernel(cudaStream_t stream, std::int64_t blocks, int threads,
                               std::size_t shared_bytes, std::function<void()> body) {
    static const std::uint64_t endless = number_of("CUDA_EMULATION_HANG", 0);
    static std::uint64_t launched = 0;
    check_launch(blocks, threads, shared_bytes);
    if (++launched == endless)
        return enqueue(stream, "kernel", [] {
            for (;;) ::pause();
        });
    enqueue(stream, "kernel",
            [=, body = std::move(body)] { run_kernel(blocks, threads, shared_bytes, body); });
}

void emulation::enqueue_work(cudaStream_t stream, std::function<void()> work) {
    enqueue(stream, "work", std::move(work));
}

void emulation::enqueue_work(cudaStream_t stream, const char* name, std::function<void()> work) {
    enqueue(stream, name, std::move(work));
}

namespace {

struct ErrorText {
    cudaError_t code;
    const char *name, *text;
};
constexpr ErrorText texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"}};

}  // namespace

const char* cudaGetErrorName(cudaError_t code) {
    for (const ErrorText& known : texts)
        if (known.code == code) return known.name;
    return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t code) {
    for (const ErrorText& known : texts)
        if (known.code == code) return known.text;
    return "unrecognized error code";
}

cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
    *count = static_cast<int>(number_of("CUDA_EMULATION_DEVICES", 1));
    return result(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess) return code;
    if (device < 0 || device >= count) return result(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "emulated GPU");
    properties->uuid.bytes[15] = static_cast<char>(device);
    properties->multiProcessorCount = 4;
    const auto capability = static_cast<int>(number_of("CUDA_EMULATION_CAPABILITY", 90));
    properties->major = capability / 10, properties->minor = capability % 10;
    properties->totalGlobalMem = number_of("CUDA_EMULATION_MEMORY", std::uint64_t{16} << 30);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    const std::lock_guard lock(mutex);
    for (EmulatedStream* stream : streams()) reach(*stream, stream->end());
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const std::lock_guard lock(mutex);
    streams().push_back(*stream = new EmulatedStream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    log_host(*stream, stream->end());
    reach(*stream, stream->end());
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    log_host(*stream, stream->end());
    if (!stream->running) reach(*stream, stream->done + 1);  // someone who asks again and again sees it end
    return result(stream->waiting.empty() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const std::lock_guard lock(mutex);
    if (event->point)
        enqueue(stream, "waits " + place(*event->point->stream, event->point->position),
                [point = event->point] { run_to(*point->stream, point->position); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    *event = new EmulatedEvent{nullptr, (flags & cudaEventDisableTiming) == 0};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    event->point = std::make_shared<Point>(Point{stream, stream->end() + 1, 0});
    enqueue(stream, "event", [point = event->point] { point->time_s = seconds_now(); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const std::lock_guard lock(mutex);
    if (event->point) log_host(*event->point->stream, event->point->position);
    if (event->point) reach(*event->point->stream, event->point->position);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const std::lock_guard lock(mutex);
    if (!event->point) return cudaSuccess;
    EmulatedStream& stream = *event->point->stream;
    log_host(stream, event->point->position);
    if (!stream.running && stream.done < event->point->position) reach(stream, stream.done + 1);
    return result(stream.done < event->point->position ? cudaErrorNotReady : cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const std::lock_guard lock(mutex);
    if (!start->timed || !end->timed || !start->point || !end->point)
        return result(cudaErrorInvalidResourceHandle);
    for (cudaEvent_t event : {start, end})
        if (event->point->stream->done < event->point->position) return result(cudaErrorNotReady);
    *milliseconds = static_cast<float>(1e3 * (end->point->time_s - start->point->time_s));
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    const std::lock_guard lock(mutex);
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    *memory = bytes > free || bytes == 0 ? nullptr : emulation::allocate_device(bytes);
    return result(*memory || bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}

/// Waits for nothing: CUDA says of it that it may.
cudaError_t cudaFree(void* memory) {
    const std::lock_guard lock(mutex);
    const bool work_waits = std::any_of(streams().begin(), streams().end(),
                                        [](const EmulatedStream* s) { return !s->waiting.empty(); });
    return result(!memory || emulation::release_device(memory, work_waits) ? cudaSuccess
                                                                           : cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
    const std::lock_guard lock(mutex);
    std::size_t held = 0;
    for (const auto& [start, size] : pinned) held += size;
    if (held + bytes > number_of("CUDA_EMULATION_PINNED", std::uint64_t{1} << 40) ||
        ::posix_memalign(memory, 4096, bytes) != 0)
        return result(cudaErrorMemoryAllocation);
    pinned[static_cast<unsigned char*>(*memory)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
    const std::lock_guard lock(mutex);
    cudaDeviceSynchronize();
    if (memory && pinned.erase(static_cast<unsigned char*>(memory)) == 0)
        return result(cudaErrorInvalidValue);
    std::free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const std::lock_guard lock(mutex);
    cudaDeviceProp properties;
    cudaGetDeviceProperties(&properties, 0);
    *total = properties.totalGlobalMem;
    *free = *total - std::min(*total, emulation::device_bytes_in_use());
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (bytes == 0) return cudaSuccess;
    const bool from_device = kind != cudaMemcpyHostToDevice, to_device = kind != cudaMemcpyDeviceToHost;
    if (emulation::is_device_memory(from, from_device ? bytes : 1) != from_device ||
        emulation::is_device_memory(to, to_device ? bytes : 1) != to_device)
        return result(cudaErrorInvalidValue);
    const auto* first = static_cast<const unsigned char*>(from);
    const auto* target = static_cast<const unsigned char*>(to);
    if (first < target + bytes && target < first + bytes)
        emulation::error(emulation::Where::current(), "cudaMemcpyAsync between places that overlap");
    if (!from_device && !is_pinned(from, bytes)) {
        auto staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
        enqueue(stream, "copy", [=] { std::memcpy(to, staged->data(), bytes); });
        return cudaSuccess;
    }
    enqueue(stream, "copy", [=] { std::memcpy(to, from, bytes); });
    return to_device || is_pinned(to, bytes) ? cudaSuccess : cudaStreamSynchronize(stream);
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (bytes == 0) return cudaSuccess;
    if (!emulation::is_device_memory(memory, bytes)) return result(cudaErrorInvalidValue);
    enqueue(stream, "set", [=] { emulation::set_device(memory, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
    return cudaSuccess;
}

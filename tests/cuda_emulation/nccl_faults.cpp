// Programs with one mistake each, for two ranks with a GPU each: what the emulation must find, and what a run
// must say of a failure elsewhere. CTest looks for the sentences.
#include <cstdio>
#include <string>
#include <vector>

#include "comm/collectives.hpp"
#include "comm/collectives_choice.hpp"
#include "comm/messages.hpp"
#include "core/error.hpp"
#include "host_mpi.hpp"
#include "support/tensors.hpp"

using namespace switchyard;  // NOLINT
using test::HostTensor;

namespace {

constexpr TrafficGroup group = TrafficGroup::other;

/// The device does what was called.
void run(const HostTensor& tensor) {
    std::vector<std::byte> bytes(tensor.num_bytes());
    kernels::download(tensor, bytes.data());
}

void other_order(const Comm& comm) {
    const HostTensor all(DType::f32, {2, 64}), values(DType::f32, {64}), scratch(DType::f32, {128});
    const auto gather = [&] {
        Traffic traffic;
        start_all_gather(comm, Tensor(all).rows(comm.rank(), 1), all, traffic, group).wait();
    };
    const auto sum = [&] {
        Traffic traffic;
        start_all_reduce(comm, values, scratch, traffic, group).wait();
    };
    comm.rank() == 0 ? gather() : sum();
    comm.rank() == 0 ? sum() : gather();
    run(values);
}

void other_length(const Comm& comm) {
    const std::int64_t length = 8 + comm.rank();
    const HostTensor all(DType::f32, {2, length});
    Traffic traffic;
    start_all_gather(comm, Tensor(all).rows(comm.rank(), 1), all, traffic, group).wait();
    run(all);
}

void other_bytes(const Comm& comm) {
    const HostTensor sent(DType::f32, {4}), received(DType::f32, {comm.rank() == 0 ? 4 : 8});
    const std::vector<Tensor> send(2, sent), receive(2, received);
    Traffic traffic;
    start_exchange(comm, send, receive, traffic, group).wait();
    run(received);
}

void absent(const Comm& comm) {
    const HostTensor all(DType::f32, {2, 8});
    Traffic traffic;
    if (comm.rank() == 0) start_all_gather(comm, Tensor(all).rows(0, 1), all, traffic, group).wait();
    run(all);
    barrier(comm);
}

void failure(const Comm& comm) {
    const HostTensor values(DType::f32, {64}), scratch(DType::f32, {128});
    Traffic traffic;
    emulation::report_nccl_failure(ncclRemoteError);
    start_all_reduce(comm, values, scratch, traffic, group).wait();
    run(values);
}

void device_memory_to_mpi(const Comm& comm) {
    const HostTensor values(DType::f32, {64});
    Requests requests;
    start_send(comm, Tensor(values).raw(), 256, 1 - comm.rank(), message_limit, requests);
}

}  // namespace

int main(int argc, char** argv) {
    MpiSession session(argc, argv);
    const std::string fault = argc > 1 ? argv[1] : "";
    try {
        const Comm comm = Comm::duplicate(MPI_COMM_WORLD);
        collectives_text(comm);
        if (fault == "order") other_order(comm);
        if (fault == "length") other_length(comm);
        if (fault == "bytes") other_bytes(comm);
        if (fault == "absent") absent(comm);
        if (fault == "failure") failure(comm);
        if (fault == "device_memory") device_memory_to_mpi(comm);
        std::fprintf(stderr, "the fault '%s' was not found\n", fault.c_str());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        abort_job();
    }
}

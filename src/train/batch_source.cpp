// A message holds tokens, targets, first keys if documents are masked, and whether reading failed.
#include "train/batch_source.hpp"

#include <algorithm>
#include <array>
#include <exception>

#include "comm/failure.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

bool reads_batches(const Topology& topology) {
    return topology.tp.rank() == 0;
}

std::size_t message_size(const ModelContext& context) {
    const std::size_t arrays = context.config.data.mask_documents ? 3 : 2;
    return arrays * static_cast<std::size_t>(context.tokens()) + 1;
}

template <class BatchType>
auto arrays_of(BatchType& batch) {
    return std::array{&batch.tokens, &batch.targets, &batch.first_key};
}

void pack(const Batch& batch, std::vector<std::int32_t>& message) {
    auto to = message.begin();
    for (const auto* array : arrays_of(batch)) to = std::copy(array->begin(), array->end(), to);
    internal_check(to == message.end() - 1, "a batch of {} values in a message of {}", to - message.begin(),
                   message.size());
}

void unpack(const std::vector<std::int32_t>& message, const ModelContext& context, Batch& batch) {
    batch.num_sequences = context.micro_batch;
    batch.seq_len = context.seq_len;
    auto from = message.begin();
    for (auto* array : arrays_of(batch)) {
        const auto end = from == message.end() - 1 ? from : from + context.tokens();
        array->assign(from, end);
        from = end;
    }
}

}  // namespace

void open_for_batches(const Topology& topology, const TokenFile& tokens) {
    agree_on(topology.world, [&] {
        if (reads_batches(topology)) tokens.open_values();
    });
}

void read_once_per_tp_group(const ModelContext& context, const BatchSource& source, std::int64_t first,
                            Batch& batch) {
    const Topology& topology = context.topology;
    if (topology.tp.size() == 1) return source(first, context.micro_batch, batch);
    std::vector<std::int32_t> message(message_size(context));
    std::exception_ptr failure;
    std::string problem;
    if (reads_batches(topology)) {
        try {
            source(first, context.micro_batch, batch);
            pack(batch, message);
        } catch (const std::exception& error) {
            failure = std::current_exception();
            problem = message_of(error);
            message.back() = 1;
        }
    }
    broadcast(topology.tp, message, context.traffic, TrafficGroup::batches);
    if (message.back() != 0) {
        problem = broadcast(topology.tp, problem);
        if (failure) std::rethrow_exception(failure);
        fail<AgreedError>("{}", problem);
    }
    if (!reads_batches(topology)) unpack(message, context, batch);
}

double bytes_of_batch(const ModelContext& context) {
    return broadcast_bytes(static_cast<double>(message_size(context) * sizeof(std::int32_t)),
                           context.topology.tp.size());
}

}  // namespace switchyard

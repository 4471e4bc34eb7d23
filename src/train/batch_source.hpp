// Where micro-batches come from. A tensor-parallel group works on one: its rank 0 alone reads it, and sends
// it to the others in one message.
#pragma once

#include <functional>

#include "io/tokens/token_loader.hpp"
#include "model/context.hpp"

namespace switchyard {

/// Fills a batch with samples first ... first + count - 1.
using BatchSource = std::function<void(std::int64_t first, std::int64_t count, Batch&)>;

/// Opens the values of a token file on the ranks that read batches; the others need not see it. Collective
/// over the world. Throws on all ranks.
void open_for_batches(const Topology&, const TokenFile&);

/// One micro-batch from sample `first` on, on all ranks of the tensor-parallel group. Collective over tp.
/// What the source throws on its rank is thrown there; the others throw AgreedError with the same words, so
/// that it alone reports the error.
void read_once_per_tp_group(const ModelContext&, const BatchSource&, std::int64_t first, Batch&);

/// Bytes that a rank sends for one micro-batch.
double bytes_of_batch(const ModelContext&);

}  // namespace switchyard

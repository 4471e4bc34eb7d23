// Synthetic tokens as the batch of a model, for tests that call its passes themselves.
#pragma once

#include "kernels/transfer.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

/// Sample `first` and those after it, data.micro_batch in all: as many as the model has room for.
inline void upload_batch(const Config& config, Transformer& model, std::int64_t first = 0) {
    Batch batch;
    synthetic_tokens(config)(first, config.data.micro_batch, batch);
    kernels::upload(batch.tokens.data(), model.batch().tokens);
    kernels::upload(batch.targets.data(), model.batch().targets);
    if (config.data.mask_documents) kernels::upload(batch.first_key.data(), model.batch().first_key);
}

}  // namespace switchyard::testing

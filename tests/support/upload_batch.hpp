// The first synthetic micro-batch as the batch of a model, for tests that call its passes themselves.
#pragma once

#include "kernels/transfer.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

inline void upload_batch(TrainState& s) {
    Batch batch;
    synthetic_tokens(s.context.config)(0, s.context.config.data.micro_batch, batch);
    kernels::upload(batch.tokens.data(), s.model.batch().tokens);
    kernels::upload(batch.targets.data(), s.model.batch().targets);
}

}  // namespace switchyard::testing

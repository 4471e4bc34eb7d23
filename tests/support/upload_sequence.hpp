// One synthetic sequence as the batch of a model, for tests that call its passes themselves.
#pragma once

#include "kernels/transfer.hpp"
#include "support/tiny_run.hpp"

namespace switchyard::testing {

inline void upload_sequence(TrainState& s) {
    Batch batch;
    synthetic_tokens(s.context.config)(0, 1, batch);
    kernels::upload(batch.tokens.data(), s.model.batch().tokens);
    kernels::upload(batch.targets.data(), s.model.batch().targets);
}

}  // namespace switchyard::testing

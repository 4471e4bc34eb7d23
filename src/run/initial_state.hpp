// What a new run takes from a checkpoint of another one (run.init_from, run.init_state), and what it leaves.
#pragma once

#include <cstdint>
#include <string>

#include "comm/comm.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/tokens/token_file.hpp"
#include "train/train_state.hpp"

namespace switchyard {

struct InitialState {
    std::string path;               // the checkpoint; "": none, the state was drawn
    std::int64_t step = 0;          // of the checkpoint
    std::int64_t first_sample = 0;  // where the new run begins in the data
    std::string text;               // for people: what was taken and what was not
    std::string warning;            // documents begin differently; "": they do not
};

/// Fills `state` at step 0: drawn, or from the checkpoint or the newest one of the run directory that
/// run.init_from names. Collective. Throws UserError on all ranks where model, tokenizer or, for
/// run.init_state = all, method and type differ. `progress`: bytes read and bytes in all, now and then.
InitialState take_initial_state(TrainState& state, const TokenFile&,
                                const CheckpointReader::Progress& progress);

}  // namespace switchyard

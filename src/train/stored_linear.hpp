// What a checkpoint says of the function of each linear beside its weight: the parts of an effective weight
// (kernels/frozen_weight.hpp), as datasets and attributes beside /model/<linear>.weight. A file describes
// itself: readers of weights know no method.
//   .lora_A (r, n), .lora_B (m, r), attribute `scale`    product, compute type of the run
//   .lora_gate (r)                                        gate of its slots
//   .row_scale (m)                                        factor of each row of the sum
//   attribute `base_factor` of .weight                    factor of the weight itself
//   attribute `effective_weight` of .weight               which of them count; other datasets are then the
//   method's
//                                                         own. "none": the linear is no such weight
#pragma once

#include <set>
#include <string>
#include <vector>

#include "io/checkpoint/state_io.hpp"
#include "model/linear.hpp"

namespace switchyard {

struct StoredLinear {
    std::int64_t low_rank = 0;  // 0: no product
    double scale = 1, base = 1;
    bool gate = false, row_scale = false;

    bool alone() const { return low_rank == 0 && base == 1 && !row_scale; }
    /// The weight and a product, as every LoRA file means it.
    bool plain_product() const { return low_rank > 0 && base == 1 && !gate && !row_scale; }
};

/// `linear`: its name without ".weight".
StoredLinear stored_linear(const CheckpointReader&, const std::string& linear);

/// Throws UserError unless every dataset under /model is one of `weights` (full names) or part of a
/// description that this program understands: what is left out would be another function, in silence. Serial:
/// reads the file's catalogue.
void require_understood(const CheckpointReader&, const std::set<std::string>& weights);

/// Saves the description of a frozen linear: what a plain product does not say already. Collective.
void describe_linear(StateIo&, const Linear&, const Topology&);

}  // namespace switchyard

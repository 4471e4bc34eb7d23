// The function of each linear as a checkpoint stores it: the parts of an effective weight
// (kernels/frozen_weight.hpp), as datasets and attributes beside /model/<linear>.weight. The file describes
// itself, so readers of weights need no method.
//   .lora_A (r, n), .lora_B (m, r), attribute `scale`    product, compute type of the run
//   attribute `minis` of .lora_A                          k: the product is k blocks on the diagonal, columns
//                                                         of block i of A with rows of block i of B
//   .lora_gate (r)                                        gate of its slots
//   .row_scale (m)                                        factor of each row of the sum
//   .lora_magnitude (m)                                   if there: row_scale is it over the norm of the row
//   .lora_bias (m)                                        is added to the output
//   attribute `base_factor` of .weight                    factor of the weight itself
//   attribute `effective_weight` of .weight               names the parts that count; other datasets are
//                                                         the method's own. "none": there is no such weight
#pragma once

#include <set>
#include <string>
#include <vector>

#include "io/checkpoint/state_io.hpp"
#include "model/linear.hpp"

namespace switchyard {

struct StoredLinear {
    std::int64_t low_rank = 0;  // 0: there is no product
    std::int64_t minis = 1;     // blocks of the product
    double scale = 1, base = 1;
    bool gate = false, row_scale = false, bias = false;
    bool magnitude = false;  // the row scale gives the rows of the sum the norms that a vector holds

    /// True for a weight without more; a bias is beside it.
    bool alone() const { return low_rank == 0 && base == 1 && !row_scale; }
    /// True for the weight, times its factor, plus a low-rank product: what a base and a LoRA file can hold.
    bool plain_product() const { return low_rank > 0 && minis == 1 && !gate && !row_scale; }
    /// True for such a product with a gate: B may have its factors, without the closed slots.
    bool gated_product() const { return low_rank > 0 && base == 1 && gate && !row_scale; }
    /// True for such a sum whose rows have the norms of a vector, which is what PEFT's DoRA holds.
    bool with_magnitude() const { return low_rank > 0 && base == 1 && !gate && magnitude; }
};

/// `linear`: its name without ".weight".
StoredLinear stored_linear(const CheckpointReader&, const std::string& linear);

/// Throws UserError unless every dataset under /model is one of `weights` (full names) or part of a
/// description that this program understands; leaving one out would silently give another function. Serial:
/// reads the file's catalogue.
void require_understood(const CheckpointReader&, const std::set<std::string>& weights);

/// Saves the description of a frozen linear if it is more than a plain product. Collective.
void describe_linear(StateIo&, const Linear&, const Topology&);

}  // namespace switchyard

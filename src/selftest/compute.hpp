// Kernels of this rank: are they right, and how fast are they at the shapes of the configured model? No
// kernel communicates; all ranks measure at the same time.
#pragma once

#include "selftest/setting.hpp"

namespace switchyard::selftest {

/// One line per kernel, with the largest error of each type as a share of its tolerance.
std::vector<Line> kernel_lines(const Setting&);
/// A large square product of each type, then the products of the model by shape: forward, gradients of inputs
/// and of weights. Where a product would take too long here, fewer tokens are taken.
std::vector<Line> product_lines(const Setting&);
std::vector<Line> copy_lines(const Setting&);
std::vector<Line> attention_lines(const Setting&);
/// Is a library's attention, which runs take where it is there, the same as ours? For one sequence.
std::vector<Line> fused_attention_lines(const Setting&);

/// A product op(a) op(b) of the configured model: c is (m, n), the sums have k terms.
struct ProductShape {
    std::string name;  // the weight's, without its block: "q_proj"
    std::string pass;  // "forward", "input gradient", "weight gradient"
    std::int64_t m = 0, n = 0, k = 0;
    bool transpose_a = false, transpose_b = false;
    bool to_accumulate_type = false;  // c is a gradient that is added to
    double flop() const {
        return 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    }
    bool same_work(const ProductShape& x) const {
        return m == x.m && n == x.n && k == x.k && transpose_a == x.transpose_a &&
               transpose_b == x.transpose_b && to_accumulate_type == x.to_accumulate_type;
    }
};
/// Each form once, with the names of all weights that have it. A product of more than `most_flop` gets fewer
/// tokens, but at least 16.
std::vector<ProductShape> product_shapes(const Setting&, double most_flop);

}  // namespace switchyard::selftest

// MiniAdapter: y = x (W + s blockdiag(B_1 A_1, ..., B_k A_k))' with W (m, n) frozen, A_i (r, n/k) and B_i
// (m/k, r) (MELoRA, Ren et al. 2024, arXiv 2402.17263). Files have A (r, n), whose columns of block i are
// A_i, and B (m, r). Both lie by long rows, so that the factors of a mini are consecutive rows. Products run
// merged.
//
// A mini ties outputs to inputs: where tp cuts the weight between minis, the factor of the other dimension is
// cut with it, and nothing is summed over tp. Where it cuts a mini, that factor is whole on all ranks.
#pragma once

#include <vector>

#include "model/linear.hpp"

namespace switchyard {

class MiniAdapter : public Adapter {
  public:
    /// minis divides both dimensions of the weight.
    MiniAdapter(const ModelContext&, const Linear&, std::int64_t low_rank, std::int64_t minis, double scale);

    void forward(const Linear&, Tensor x, Tensor y) override;
    void backward(const Linear&, Tensor x, Tensor d_y, Tensor d_x, Write) override;
    /// The minis of this rank as one pair: a slot has zeros outside its mini.
    std::optional<kernels::EffectiveWeight> effective_weight() override;
    bool merged() const override { return true; }
    void merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) override;
    Cost cost(const Linear&) const override;
    std::vector<Parameter*> parameters() override { return {&a_, &b_}; }

    Parameter& a() { return a_; }
    Parameter& b() { return b_; }
    double scale() const { return scale_; }
    std::int64_t minis() const { return minis_; }
    /// A ~ U(+-bound) from the global stream of A (r, n).
    void draw_a(std::uint64_t key, double bound);

  private:
    /// The part of a mini on this rank: columns of x and of y, and where its rows begin in A' and B.
    struct Part {
        std::int64_t x_column = 0, in = 0, y_column = 0, out = 0, a_row = 0, b_row = 0;
    };
    void find_parts(const Linear&);
    void take_memory(const ModelContext&, const Linear&);
    /// Columns [column, column + width) of the rows of t, in one piece: in `place`, or t itself.
    static Tensor columns(Tensor t, std::int64_t column, std::int64_t width, Tensor place);
    /// The factors of a part slot by slot: a (r, in padded) with zeros beside it, b (r, count) for `count`
    /// rows from `first` on.
    void spread(const Part&, std::int64_t first, std::int64_t count, Tensor a, Tensor b) const;

    std::int64_t minis_, low_rank_;
    double scale_;
    bool measuring_;  // there is no memory
    Extent rows_of_a_, rows_of_b_;
    Extent in_, out_;
    std::vector<Part> parts_;
    Parameter a_, b_;               // A' (rows_of_a_, r), B (rows_of_b_, r)
    Tensor x_part_, d_y_part_, z_;  // shared: (N, widest part) flat, and (N, r)
    /// Shared: slots of all parts, (parts r, in) and (parts r, out) flat, with room for one part more; (r,
    /// most rows of A') flat; work space of a merge.
    Tensor slots_a_, slots_b_, turned_, merge_scratch_;
};

}  // namespace switchyard

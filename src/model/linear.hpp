// Linear: y = x W' without bias, W (out, in). Column-parallel: out is cut over tp. Row-parallel: in is cut
// over tp, and outputs are partial sums. The weight is trained (dense) or frozen; an Adapter may change the
// map.
#pragma once

#include <memory>
#include <string>

#include "io/checkpoint/state_io.hpp"
#include "model/adapter.hpp"
#include "model/context.hpp"
#include "model/extent.hpp"

namespace switchyard {

enum class Split { column, row };

/// A frozen base weight: all rows of the local (out, in) block or, with parallel.shard_frozen, a slice of
/// them.
struct FrozenBase {
    kernels::FrozenWeight words;  // (slice.kept, in padded)
    RowSlice slice;
    /// The words of slice.local rows; rows beyond the block belong to no weight.
    kernels::FrozenWeight local_rows() const { return words.rows(0, slice.local); }
};

class Linear {
  public:
    /// `name` is the name in Hugging Face files without ".weight".
    Linear(std::string name, Split split, Extent out, Extent in)
        : name_(std::move(name)), split_(split), out_(out), in_(in) {}

    /// Allocates the weight, dense (adapter == nullptr) or frozen under `adapter`; no weight if the adapter
    /// owns it.
    void allocate(const ModelContext&, std::unique_ptr<Adapter> adapter);
    /// Values N(0, init_std^2), the same on every layout. A frozen weight is stored in full precision.
    void initialise(const ModelContext&);

    /// The rows that this rank keeps if the weight is frozen; known before allocation.
    RowSlice frozen_slice(const ModelContext&) const;

    /// Saves or loads the frozen weight in full precision as /model/<name>.weight. Collective.
    void visit_base(StateIo&, const ModelContext&);

    /// y (N, out local) = x W'; output_complete() follows when y is complete.
    void forward(Tensor x, Tensor y) const;
    void output_complete(Tensor y) const {
        if (adapter_) adapter_->on_output(*this, y);
    }
    void backward(Tensor x, Tensor d_y, Tensor d_x, Write);

    /// Operations of its products, over all ranks.
    Cost cost() const;
    /// True if backward computes the output again (model.recompute).
    bool recomputed() const { return recomputed_; }
    void set_recomputed() { recomputed_ = true; }

    const std::string& name() const { return name_; }
    Split split() const { return split_; }
    const Extent& out() const { return out_; }
    const Extent& in() const { return in_; }
    /// The position of the local (out, in) block in the whole weight; shard().name ends in ".weight".
    Shard shard() const;
    /// The position of base().words in the whole weight. Slices differ over dp; whole blocks are replicas.
    Shard base_shard(const ModelContext&) const;
    bool frozen() const { return adapter_ && !adapter_->owns_weight(); }
    Adapter* adapter() const { return adapter_.get(); }
    Parameter& dense() { return dense_; }
    FrozenBase& base() { return base_; }
    const FrozenBase& base() const { return base_; }

    /// The weight that products use now: dense values, the base's compute words, or a staged copy (merged or
    /// gathered).
    Tensor weight() const { return weight_; }
    void set_weight(Tensor weight) { weight_ = weight; }

  private:
    std::string name_;
    Split split_;
    Extent out_, in_;
    Parameter dense_;
    FrozenBase base_;
    Tensor weight_;
    std::unique_ptr<Adapter> adapter_;
    bool recomputed_ = false;
};

}  // namespace switchyard

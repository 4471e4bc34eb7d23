// Reads weights from a checkpoint without optimizer state: to start another run from them, or to evaluate.
#pragma once

#include "io/checkpoint/checkpoint_file.hpp"
#include "model/linear.hpp"

namespace switchyard {

/// Reads this rank's part of /model. Collective: the calls must be the same on all ranks. The file's
/// attribute dtype tells the compute type of the run that wrote it: factors of a bf16 run are rounded before
/// they are merged.
class WeightReader {
  public:
    /// `progress` is called on every rank with the bytes of /model read so far and in all.
    WeightReader(const ModelContext&, const CheckpointReader&, CheckpointReader::Progress progress = {});

    /// out (at least part.rows, part.cols; or n; accumulate type) <- the part of /model/<part.name>, with
    /// zeros as padding. part.replica: number among the ranks that read the same part. merged: the effective
    /// weight, with everything that the file has beside the weight (train/stored_linear.hpp).
    void weight(const Shard& part, bool merged, Tensor out) const;
    /// out (rows, cols of the part; accumulate type) <- the part of a factor, /model/<part.name>, rounded to
    /// the compute type of the run that wrote it, as in that run's products.
    void factor(const Shard& part, Tensor out) const;
    /// The parameter's value <- what the file holds, also for parameters that are stored transposed.
    void parameter(Parameter&) const;
    /// The same for a weight with low-rank factors merged, in full precision: out (the value's shape,
    /// accumulate type).
    void parameter(const Parameter&, Tensor out) const;
    /// The words of a frozen base <- the weight.
    void frozen_base(Linear&, bool merged) const;
    /// Nothing more is read: tells `progress` so, also where the file holds more than was wanted.
    void finish() const;

  private:
    void read(const Shard& part, Tensor out) const;
    void fetch(const std::string& path, const Shard& part, Tensor out) const;
    std::uint64_t bytes_of(const std::string& path) const;
    void parameter(const Parameter&, bool merged, Tensor out) const;
    void form_effective(const Shard& part, Tensor out) const;

    const ModelContext& context_;
    const CheckpointReader& reader_;
    DType stored_, stored_compute_;
    CheckpointReader::Progress progress_;
    std::uint64_t all_bytes_ = 0;
    mutable std::uint64_t read_bytes_ = 0;
};

}  // namespace switchyard

// All values of a run as whole tensors under their checkpoint's names, the same whatever the layout.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "io/checkpoint/checkpoint_file.hpp"
#include "support/temporary_directory.hpp"
#include "support/tensors.hpp"
#include "train/train_state.hpp"

namespace switchyard::testing {

using WholeState = std::map<std::string, test::Values>;

/// Of a checkpoint file; for one rank.
inline WholeState stored_state(const std::string& path) {
    WholeState all;
    const CheckpointReader reader(Comm{}, path);
    for (const DatasetInfo& dataset : file_contents(path).datasets) {
        const Shape shape = reader.shape(dataset.path);
        const DType dtype = dataset.dtype == "i64"   ? DType::i64
                            : dataset.dtype == "i32" ? DType::i32
                            : dataset.dtype == "u8"  ? DType::u8
                            : dataset.dtype == "f32" ? DType::f32
                                                     : DType::f64;
        const test::HostTensor values(dtype, shape);
        const std::int64_t cols = shape.rank() == 2 ? shape[1] : 1;
        reader.read(dataset.path, {dataset.path, shape, 0, 0, shape[0], cols, 0}, values);
        all[dataset.path] = values.values();
    }
    return all;
}

/// Collective, by way of a checkpoint file; rank 0 gets the values, the others none.
inline WholeState whole_state(TrainState& state) {
    const Comm& world = state.context.topology.world;
    std::unique_ptr<test::TemporaryDirectory> directory;
    if (world.rank() == 0) directory = std::make_unique<test::TemporaryDirectory>();
    const std::string path = broadcast(world, directory ? directory->file("state.h5") : "");
    CheckpointWriter writer(world, path);
    StateIo io(writer);
    state.visit(io);
    writer.commit();
    return world.rank() == 0 ? stored_state(path) : WholeState{};
}

}  // namespace switchyard::testing

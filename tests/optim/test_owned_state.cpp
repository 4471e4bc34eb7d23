// RANKS: 1 2 4
// State that differs from AdamW's: no master, no second moment, moments of other widths, one step counter for
// all rows. It moves with its rows, is stored and read back, and takes the memory that it announces.
#include <gtest/gtest.h>

#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "optim/optimizer.hpp"
#include "support/temporary_directory.hpp"
#include "support/tensors.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t num_rows = 13, width = 5, gradient_width = 3;

struct Kind {
    const char* name;
    DType dtype;  // of the run
    bool step_per_row, master;
    std::int64_t m_width, v_width;
};

std::vector<double> host(Tensor tensor) {
    const test::HostTensor wide(DType::f64, tensor.shape());
    kernels::copy(tensor, wide);
    return wide.values();
}

/// One parameter over all ranks, and its optimizer.
class State {
  public:
    State(const Kind& kind, const Topology& topology)
        : config_(testing::tiny_config({std::string("--run.dtype=") + name_of(kind.dtype)})),
          topology_(topology) {
        Arena measured;
        build(kind, measured);
        arena_ = Arena::allocate(measured);
        build(kind, arena_);
    }
    Optimizer& optimizer() { return *optimizer_; }
    OwnedParameter& owned() { return optimizer_->owned()[0]; }
    Parameter& parameter() { return parameter_; }
    std::int64_t moment_bytes() const {
        return static_cast<std::int64_t>(arena_.bytes(MemoryClass::moments));
    }
    std::int64_t capacity() const { return capacity_; }

    void move(const std::vector<RowMove>& moves) {
        kernels::StepLists lists;
        const Arena arena = allocate_scratch([&](Arena& a) { lists = kernels::StepLists(a, 1000); });
        lists.begin();
        RowMoves planned = optimizer().plan_moves(moves, lists);
        lists.commit();
        planned.leave.run();
        planned.exchange(traffic_);
        planned.close_gaps.run();
        planned.arrive.run();
    }

    /// Fills row r with 10 r + 1, 2 and 3 in the master and both moments, and its step counter with r + 4.
    void fill() {
        for (std::int32_t row = 0; row < num_rows; ++row) {
            if (!owned().mine(row)) continue;
            kernels::fill(owned().master(row), 10 * row + 1);
            if (owned().m_width() > 0) kernels::fill(owned().m(row), 10 * row + 2);
            if (owned().v_width() > 0) kernels::fill(owned().v(row), 10 * row + 3);
            const std::int32_t step = owned().step_per_row() ? row + 4 : 4;
            kernels::upload(&step, owned().step(row));
        }
    }
    void expect_filled(bool with_masters) {
        for (std::int32_t row = 0; row < num_rows; ++row) {
            if (!owned().mine(row)) continue;
            const auto expect = [&](Tensor tensor, std::int64_t columns, double value) {
                EXPECT_EQ(host(tensor), std::vector<double>(static_cast<std::size_t>(columns), value)) << row;
            };
            if (with_masters) expect(owned().master(row), width, 10 * row + 1);
            if (owned().m_width() > 0) expect(owned().m(row), owned().m_width(), 10 * row + 2);
            if (owned().v_width() > 0) expect(owned().v(row), owned().v_width(), 10 * row + 3);
            std::int32_t step = 0;
            kernels::download(owned().step(row), &step);
            EXPECT_EQ(step, owned().step_per_row() ? row + 4 : 4) << row;
        }
    }

  private:
    void build(const Kind& kind, Arena& arena) {
        const ModelContext context{config_, topology_, arena, traffic_, kind.dtype, 1, 8};
        parameter_ = {};
        parameter_.shard = {"x", {num_rows, width}, 0, 0, num_rows, width, 0};
        parameter_.value = arena.take(MemoryClass::trainable, kind.dtype, {num_rows, width});
        parameter_.gradient =
            arena.take(MemoryClass::gradients, context.accumulate(), {num_rows, gradient_width});
        parameter_.tp_gradient = TpGradient::partial;
        optimizer_.emplace(context, std::vector<Parameter*>{&parameter_}, [&](const Parameter&) {
            OwnershipPlan plan{block_owners(topology_.world, num_rows), num_rows, kind.step_per_row};
            plan.most_moving = num_rows;
            plan.master = kind.master;
            plan.m_width = kind.m_width;
            plan.v_width = kind.v_width;
            capacity_ = plan.capacity;
            return plan;
        });
    }
    Config config_;
    const Topology& topology_;
    Traffic traffic_;
    Arena arena_;
    Parameter parameter_;
    std::optional<Optimizer> optimizer_;
    std::int64_t capacity_ = 0;
};

class OwnedState : public ::testing::TestWithParam<Kind> {
  protected:
    OwnedState() : world_(Comm::duplicate(MPI_COMM_WORLD)), topology_(Topology::create(world_, 1)) {
        path_ = broadcast(world_, folder_.file("state.h5"));
    }
    ~OwnedState() override { barrier(world_); }
    test::TemporaryDirectory folder_;
    Comm world_;
    Topology topology_;
    std::string path_;
};

TEST_P(OwnedState, MovesWithItsRows) {
    State state(GetParam(), topology_);
    state.fill();
    // Every other row goes one rank on: out of the middle of what its owner holds, and back.
    for (const int direction : {1, -1}) {
        std::vector<RowMove> moves;
        for (std::int32_t row = 0; row < num_rows; row += 2) {
            const int from = state.owned().owners().owner[row];
            moves.push_back({0, row, from, (from + direction + world_.size()) % world_.size()});
        }
        state.move(moves);
        for (const RowMove& move : moves) EXPECT_EQ(state.owned().mine(move.row), move.to == world_.rank());
        state.expect_filled(false);  // masters do not travel
    }
}

TEST_P(OwnedState, IsStoredAndReadBack) {
    State state(GetParam(), topology_);
    state.fill();
    std::uint64_t counted = 0;
    {
        CheckpointWriter writer(world_, path_);
        StateIo io(writer), counter(counted);
        state.optimizer().visit_state(io);
        state.optimizer().visit_state(counter);
        writer.commit();
    }
    const CheckpointReader reader(world_, path_);
    const auto columns = [&](const char* name) { return reader.has(name) ? reader.shape(name)[1] : 0; };
    EXPECT_EQ(columns("/model/x"), width);
    EXPECT_EQ(columns("/optimizer/x/m"), state.owned().m_width());
    EXPECT_EQ(columns("/optimizer/x/v"), state.owned().v_width());
    if (world_.rank() == 0) {
        std::uint64_t stored = 0;
        for (const DatasetInfo& dataset : file_contents(path_).datasets) stored += dataset.bytes;
        EXPECT_EQ(counted, stored);
    }
    State next(GetParam(), topology_);
    StateIo io(reader);
    next.optimizer().visit_state(io);
    io.complete();
    next.expect_filled(true);
    next.optimizer().values_from_masters();
    const std::vector<double> values = host(next.parameter().value);
    const test::HostTensor rounded(GetParam().dtype, {1});
    for (std::int64_t row = 0; row < num_rows; ++row) {
        kernels::fill(rounded, static_cast<double>(10 * row + 1));
        EXPECT_EQ(values[static_cast<std::size_t>(row * width)], rounded.at(0)) << row;
    }
}

TEST_P(OwnedState, TakesTheMemoryThatItSays) {
    const Kind kind = GetParam();
    const State state(kind, topology_);
    const auto element = static_cast<std::int64_t>(size_of(accumulate_type(kind.dtype)));
    const std::int64_t m = kind.m_width < 0 ? gradient_width : kind.m_width,
                       v = kind.v_width < 0 ? gradient_width : kind.v_width;
    const bool aliased = world_.size() == 1 && kind.dtype != DType::bf16;
    const auto alignment = static_cast<std::int64_t>(backend::alignment());
    const auto rounded = [=](std::int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    std::int64_t expected = rounded(4 * (kind.step_per_row ? state.capacity() : 1)) +
                            (kind.step_per_row ? rounded(4 * state.capacity()) : 0) +
                            2 * rounded(4 * state.capacity());  // lists of rows
    if (kind.master && !aliased) expected += rounded(element * state.capacity() * width);
    expected += rounded(element * state.capacity() * m) + rounded(element * state.capacity() * v);
    EXPECT_EQ(state.moment_bytes(), expected);
}

TEST_P(OwnedState, IsTheMethodsToUpdate) {
    State state(GetParam(), topology_);
    state.optimizer().measure_gradients();
    state.optimizer().decide_clip();
    int asked = 0;
    state.optimizer().update(1, [&](OwnedParameter&, kernels::AdamWSettings&) {
        ++asked;
        return false;
    });
    EXPECT_EQ(asked, 1);
    EXPECT_THROW(state.owned().adamw_rows({}), InternalError)
        << "AdamW needs all of it, as wide as the value";
}

TEST_P(OwnedState, HasTheNormThatTheMethodSays) {
    State state(GetParam(), topology_);
    Optimizer& optimizer = state.optimizer();
    optimizer.measure_gradients([&] {
        EXPECT_EQ(host(optimizer.squared_norms()), std::vector<double>{0});
        kernels::fill(optimizer.squared_norms(), topology_.world.rank() + 2);
    });
    const int ranks = topology_.world.size();
    EXPECT_EQ(host(optimizer.squared_norm()), std::vector<double>{2.0 * ranks + ranks * (ranks - 1) / 2});
}

constexpr std::int64_t same = OwnershipPlan::as_gradient;
INSTANTIATE_TEST_SUITE_P(Kinds, OwnedState,
                         ::testing::Values(Kind{"projected", DType::f32, true, true, same, same},
                                           Kind{"projected_with_one_counter", DType::f64, false, true, same,
                                                same},
                                           Kind{"no_master", DType::f32, true, false, same, same},
                                           Kind{"no_master_in_bf16", DType::bf16, false, false, same, same},
                                           Kind{"first_moment_alone", DType::bf16, true, true, same, 0},
                                           Kind{"no_moments", DType::f32, false, true, 0, 0},
                                           Kind{"wider_second_moment", DType::f32, true, true, 2, 6}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace switchyard

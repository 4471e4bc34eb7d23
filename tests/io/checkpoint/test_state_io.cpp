// RANKS: 1 2 3 4
// Rows spread over ranks in any order come to the file as one tensor and back to any other order, also where
// a rank's block is written in several pieces.
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/collectives.hpp"
#include "io/checkpoint/state_io.hpp"
#include "support/checkpoint_data.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::HostTensor;
using test::put;
using test::whole_tensor;

struct Layout {
    Shape global;       // before transposition
    int tp = 1;         // ranks that split `split_dim`; the others of the group own rows
    int split_dim = 0;  // 0: rows over tp, 1: columns
    bool transposed = false;
    std::uint64_t seed = 0;  // draws the owner of each row
};

/// This rank's rows of a matrix, with values that tell their place in the whole.
class SpreadRows {
  public:
    SpreadRows(const Comm& world, const Layout& layout)
        : group_(world.split(world.rank() % layout.tp, world.rank())), layout_(layout) {
        const int tp_rank = world.rank() % layout.tp;
        Shape& global = layout_.global;
        rows_ = padded_ = global[0];
        cols_ = width_ = global[1];
        if (layout.split_dim == 0) std::tie(row0_, rows_, padded_) = part(global[0], tp_rank);
        if (layout.split_dim == 1) std::tie(col0_, cols_, width_) = part(global[1], tp_rank);
        for (std::int64_t row = 0; row < padded_; ++row) {
            const auto draw = mix64(layout.seed * 1000003 + static_cast<std::uint64_t>(row));
            owner_.push_back(static_cast<int>(draw % static_cast<std::uint64_t>(group_.size())));
            if (owner_.back() == group_.rank() && row < rows_)
                held_.push_back(static_cast<std::int32_t>(row));
        }
    }

    /// The values must live until they are written or read.
    void visit(StateIo& io, const std::string& path) {
        DistributedRows d;
        d.group = &group_;
        d.held = held_;
        d.global = layout_.transposed ? Shape{layout_.global[1], layout_.global[0]} : layout_.global;
        d.row0 = row0_;
        d.col0 = col0_;
        d.rows = rows_;
        d.cols = cols_;
        d.transposed = layout_.transposed;
        const auto count = static_cast<std::int64_t>(held_.size());
        forwards_ = HostTensor(DType::f64, {count, cols_ + 3});
        backwards_ = forwards_.clone();
        if (io.saving())
            for (const std::int32_t row : held_)
                for (std::int64_t col = 0; col < cols_; ++col)
                    put(*place(row).first, place(row).second * (cols_ + 3) + 2 + col, index_of(row, col));
        const Tensor forwards = forwards_, backwards = backwards_;
        const auto part = [this, forwards, backwards](std::int32_t row) {
            const auto [tensor, at] = place(row);
            return kernels::RowPart{tensor == &backwards_ ? backwards : forwards, kernels::Rows::range(at, 1),
                                    2, cols_};
        };
        io.rows(path, d, {DType::f64, part, part});
    }

    void expect_read() {
        HostTensor expected(DType::f64, {std::max<std::int64_t>(1, cols_)});
        for (const std::int32_t row : held_)
            for (std::int64_t col = 0; col < cols_; ++col) {
                put(expected, col, index_of(row, col));
                EXPECT_EQ(place(row).first->bits(place(row).second * (cols_ + 3) + 2 + col),
                          expected.bits(col))
                    << "row " << row;
            }
        for (const HostTensor* t : {&forwards_, &backwards_})
            for (std::int64_t i = 0; i < t->size(); ++i) {
                const std::int64_t col = i % (cols_ + 3);
                EXPECT_TRUE((col >= 2 && col < cols_ + 2) || t->at(i) == 0) << "padding";
            }
    }

  private:
    /// Held rows lie in two tensors, three here and three there, in one of them backwards, between columns of
    /// padding.
    std::pair<HostTensor*, std::int64_t> place(std::int32_t row) {
        const auto count = static_cast<std::int64_t>(held_.size());
        const std::int64_t i = std::lower_bound(held_.begin(), held_.end(), row) - held_.begin();
        return i / 3 % 2 == 0 ? std::pair(&backwards_, count - 1 - i) : std::pair(&forwards_, i);
    }
    /// {begin, valid, padded} of a block of ceil(size / tp) rounded up to 16.
    std::tuple<std::int64_t, std::int64_t, std::int64_t> part(std::int64_t size, int index) const {
        const std::int64_t block = ((size + layout_.tp - 1) / layout_.tp + 15) / 16 * 16;
        const std::int64_t begin = std::min(size, index * block);
        return {begin, std::min(size, begin + block) - begin, block};
    }
    /// Flat index of a value in the dataset.
    std::int64_t index_of(std::int64_t row, std::int64_t col) const {
        row += row0_;
        col += col0_;
        return layout_.transposed ? col * layout_.global[0] + row : row * layout_.global[1] + col;
    }

    Comm group_;
    Layout layout_;
    std::int64_t row0_ = 0, rows_ = 0, padded_ = 0, col0_ = 0, cols_ = 0, width_ = 0;
    std::vector<int> owner_;
    std::vector<std::int32_t> held_;
    HostTensor forwards_, backwards_;
};

std::vector<int> divisors(int number) {
    std::vector<int> all;
    for (int d = 1; d <= number; ++d)
        if (number % d == 0) all.push_back(d);
    return all;
}

class StateRows : public ::testing::Test {
  protected:
    StateRows() : world(Comm::duplicate(MPI_COMM_WORLD)) { path = broadcast(world, folder.path()) + "/a.h5"; }
    ~StateRows() override { barrier(world); }

    void expect_round_trip(const Layout& written, const std::vector<Layout>& readers,
                           std::uint64_t window_bytes) {
        {
            CheckpointWriter writer(world, path, window_bytes);
            StateIo io(writer);
            SpreadRows rows(world, written);
            rows.visit(io, "/x");
            writer.commit();
        }
        const CheckpointReader reader(world, path, window_bytes);
        const Shape shape = reader.shape("/x");
        const HostTensor whole(DType::f64, shape);
        reader.read("/x", {"x", shape, 0, 0, shape[0], shape[1], world.rank()}, whole);
        EXPECT_TRUE(test::same_bits(whole, whole_tensor(DType::f64, shape)));
        for (const Layout& layout : readers) {
            StateIo io(reader);
            SpreadRows rows(world, layout);
            rows.visit(io, "/x");
            io.complete();
            rows.expect_read();
        }
        if (world.rank() == 0) {
            EXPECT_EQ(verify_file(path), std::vector<std::string>{});
        }
        barrier(world);
    }

    test::TemporaryDirectory folder;
    Comm world;
    std::string path;
};

TEST_F(StateRows, AnyLayoutIsReadAsAnyOther) {
    for (const Shape& shape : {Shape{37, 21}, Shape{3, 40}, Shape{50, 1}})
        for (bool transposed : {false, true}) {
            std::vector<Layout> all;
            for (int tp : divisors(world.size()))
                for (int dim : {0, 1})
                    all.push_back({shape, tp, dim, transposed, static_cast<std::uint64_t>(tp)});
            for (const Layout& written : all) expect_round_trip(written, all, default_window_bytes);
        }
}

/// Rows are longer and shorter than a window, and every window's end cuts one.
TEST_F(StateRows, WindowsCutRows) {
    for (const Shape& shape : {Shape{300, 21}, Shape{7, 1500}})
        for (bool transposed : {false, true}) {
            std::vector<Layout> all;
            for (int tp : divisors(world.size()))
                for (int dim : {0, 1})
                    all.push_back({shape, tp, dim, transposed, static_cast<std::uint64_t>(tp)});
            for (const Layout& written : all) expect_round_trip(written, all, least_window_bytes);
        }
}

/// 12 MB and more a rank: several windows, the last one short.
TEST_F(StateRows, LongRows) {
    const std::int64_t rows = 1530 * world.size() + 5;
    const Shape long_rows{rows, 1001};
    std::vector<Layout> all;
    for (int tp : divisors(world.size())) all.push_back({long_rows, tp, 0, false, 5});
    all.push_back({long_rows, world.size(), 1, false, 6});  // columns over ranks: one piece a row
    for (const Layout& written : all) expect_round_trip(written, all, default_window_bytes);
}

}  // namespace
}  // namespace switchyard

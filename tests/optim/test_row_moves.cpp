// RANKS: 2 3 4
// Rows change owner during a run, which goes on like a run whose rows stay, with one step counter for all
// rows or one per row; and the state is where the tables tell.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/transfer.hpp"
#include "support/layouts.hpp"
#include "support/tiny_run.hpp"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

/// Every rank that owns several rows of a parameter gives `count` of them, from its second on, to the next
/// rank.
std::vector<RowMove> rotation(const std::deque<OwnedParameter>& all, int count) {
    std::vector<RowMove> moves;
    for (int i = 0; i < static_cast<int>(all.size()); ++i) {
        const std::vector<int>& owner = all[i].owners().owner;
        const int ranks = all[i].owners().group->size();
        std::vector<std::vector<std::int32_t>> rows(ranks);
        for (std::size_t row = 0; row < owner.size(); ++row)
            rows[owner[row]].push_back(static_cast<std::int32_t>(row));
        const bool enough = std::all_of(rows.begin(), rows.end(), [&](const auto& some) {
            return static_cast<int>(some.size()) > count;
        });
        if (!enough) continue;
        for (int p = 0; p < ranks; ++p)
            for (int j = 1; j <= count; ++j) moves.push_back({i, rows[p][j], p, (p + 1) % ranks});
    }
    return moves;
}

/// The masters of this rank's rows, by parameter and row.
std::map<std::pair<int, std::int32_t>, std::vector<double>> masters(const std::deque<OwnedParameter>& all) {
    std::map<std::pair<int, std::int32_t>, std::vector<double>> result;
    for (int i = 0; i < static_cast<int>(all.size()); ++i)
        for (std::int32_t row = 0; row < static_cast<std::int32_t>(all[i].owners().owner.size()); ++row) {
            if (!all[i].mine(row)) continue;
            std::vector<double>& values = result[{i, row}];
            values.resize(static_cast<std::size_t>(all[i].width()));
            kernels::download(all[i].master(row), values.data());
        }
    return result;
}

/// Moves rows of all parameters. Masters are not sent; in f64 they are the values.
void move(TinyRun& run, int count) {
    Optimizer& optimizer = run.state().optimizer;
    const std::vector<RowMove> moves = rotation(optimizer.owned(), count);
    ASSERT_FALSE(moves.empty());
    kernels::StepLists lists;
    const Arena arena = allocate_scratch([&](Arena& a) { lists = kernels::StepLists(a, 100000); });
    const auto before = masters(optimizer.owned());
    double sent = 0;
    for (const RowMove& m : moves) sent += optimizer.move_bytes(m);
    lists.begin();
    RowMoves planned = optimizer.plan_moves(moves, lists);
    lists.commit();
    planned.leave.run();
    Traffic traffic;
    planned.exchange(traffic);
    planned.close_gaps.run();
    planned.arrive.run();
    EXPECT_EQ(traffic.bytes[static_cast<int>(TrafficGroup::moves)], sent);
    for (const RowMove& m : moves) EXPECT_EQ(optimizer.owned()[m.parameter].owners().owner[m.row], m.to);
    for (const auto& [row, values] : masters(optimizer.owned())) {
        const auto stayed = before.find(row);
        if (stayed != before.end()) {
            EXPECT_EQ(values, stayed->second) << "parameter " << row.first << ", row " << row.second;
        }
    }
    for (OwnedParameter& owned : optimizer.owned()) owned.masters_from_values();
}

TEST(RowMovesTest, ARunGoesOnAsOneWhoseRowsStay) {
    for (const auto& [name, bits] : {std::pair{"full", "32"}, {"lora", "32"}, {"full", "8"}, {"lora", "8"}})
        testing::for_each_layout(tiny_config({std::string("--method.name=") + name, "--optim.clip_norm=0",
                                              "--model.num_layers=1", "--optim.min_8bit_size=0",
                                              std::string("--optim.state_bits=") + bits}),
                                 [&](const Config& here, const Topology& topology) {
                                     if (topology.dp_size() == 1) return;  // each row has one owner
                                     TinyRun stays(here, topology), moves(here, topology);
                                     EXPECT_EQ(stays.losses(2), moves.losses(2));
                                     for (int count : {1, 2, 1}) {
                                         move(moves, count);
                                         EXPECT_EQ(stays.losses(2), moves.losses(2))
                                             << name << ", " << bits << " bits, " << count << " rows a rank";
                                     }
                                 });
}

}  // namespace
}  // namespace switchyard

// RANKS: 1 2 3 4
// ALONE: it stands between the program and MPI.
// What `plan` says before a run is what the run does: bytes sent by group in every step and memory by class,
// for every factorisation, and what is counted is what MPI is asked to send. Calls of MPI are watched through
// its profiling interface.
#include <gtest/gtest.h>

#include <cmath>

#include "plan/plan.hpp"
#include "support/methods.hpp"
#include "support/tiny_run.hpp"

namespace {

double asked_bytes = 0;     // to other ranks, by collectives on tensors and by rows that move
double scalar_bytes = 0;    // to other ranks, by collectives on host scalars
double num_reductions = 0;  // broadcasts, too: their counted bytes are rounded

double bytes_of(MPI_Datatype type, double count) {
    int size = 0;
    PMPI_Type_size(type, &size);
    return count * size;
}

int ranks_of(MPI_Comm comm) {
    int size = 0;
    PMPI_Comm_size(comm, &size);
    return size;
}

int rank_in(MPI_Comm comm) {
    int rank = 0;
    PMPI_Comm_rank(comm, &rank);
    return rank;
}

}  // namespace

extern "C" {

int MPI_Ialltoall(const void* send, int send_count, MPI_Datatype send_type, void* received, int count,
                  MPI_Datatype type, MPI_Comm comm, MPI_Request* request) {
    asked_bytes += bytes_of(send_type, send_count) * (ranks_of(comm) - 1);
    return PMPI_Ialltoall(send, send_count, send_type, received, count, type, comm, request);
}

int MPI_Iallgather(const void* send, int send_count, MPI_Datatype send_type, void* received, int count,
                   MPI_Datatype type, MPI_Comm comm, MPI_Request* request) {
    const double bytes = bytes_of(type, count);  // up to two f64: scalars of a step
    (bytes <= 16 ? scalar_bytes : asked_bytes) += bytes * (ranks_of(comm) - 1);
    return PMPI_Iallgather(send, send_count, send_type, received, count, type, comm, request);
}

int MPI_Ialltoallv(const void* send, const int* send_counts, const int* send_offsets, MPI_Datatype send_type,
                   void* received, const int* counts, const int* offsets, MPI_Datatype type, MPI_Comm comm,
                   MPI_Request* request) {
    for (int p = 0; p < ranks_of(comm); ++p)
        if (p != rank_in(comm)) asked_bytes += bytes_of(send_type, send_counts[p]);
    return PMPI_Ialltoallv(send, send_counts, send_offsets, send_type, received, counts, offsets, type, comm,
                           request);
}

int MPI_Iallgatherv(const void* send, int send_count, MPI_Datatype send_type, void* received,
                    const int* counts, const int* offsets, MPI_Datatype type, MPI_Comm comm,
                    MPI_Request* request) {
    asked_bytes += bytes_of(type, counts[rank_in(comm)]) * (ranks_of(comm) - 1);
    ++num_reductions;
    return PMPI_Iallgatherv(send, send_count, send_type, received, counts, offsets, type, comm, request);
}

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request* request) {
    asked_bytes += bytes_of(type, count);
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type, void* received, int count,
                  MPI_Datatype type, MPI_Comm comm) {
    scalar_bytes += bytes_of(type, count) * (ranks_of(comm) - 1);
    return PMPI_Allgather(send, send_count, send_type, received, count, type, comm);
}

int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    if (rank_in(comm) == root) asked_bytes += bytes_of(type, count) * (ranks_of(comm) - 1);
    ++num_reductions;
    return PMPI_Bcast(data, count, type, root, comm);
}

}  // extern "C"

namespace switchyard {
namespace {

using testing::tiny_config;
using testing::TinyRun;

Comm world() {
    return Comm::duplicate(MPI_COMM_WORLD);
}

std::vector<int> tensor_parallel_sizes() {
    const int size = ranks_of(MPI_COMM_WORLD);
    std::vector<int> all;
    for (int tp = 1; tp <= size; ++tp)
        if (size % tp == 0) all.push_back(tp);
    return all;
}

double total(const Traffic& traffic, std::initializer_list<TrafficGroup> groups) {
    double sum = 0;
    for (TrafficGroup g : groups) sum += traffic.bytes[static_cast<int>(g)];
    return sum;
}
double of(const Traffic& traffic, TrafficGroup group) {
    return total(traffic, {group});
}

/// One step, and what it sent.
struct Sent {
    StepResult result;
    Traffic counted;
    double asked = 0, scalars = 0, reductions = 0;
};
Sent step(TinyRun& run) {
    const Traffic before = run.traffic();
    asked_bytes = scalar_bytes = num_reductions = 0;
    Sent sent{run.step(), {}, 0, 0, 0};
    sent.asked = asked_bytes, sent.scalars = scalar_bytes, sent.reductions = num_reductions;
    for (int g = 0; g < num_traffic_groups; ++g)
        sent.counted.bytes[g] = run.traffic().bytes[g] - before.bytes[g];
    return sent;
}

/// Steps of a run against the plan for this rank: bytes by group, memory by class, and MPI's view.
void expect_as_planned(const Config& config, const Topology& topology, int steps, const std::string& what) {
    const Plan plan = make_plan(config, topology.world.size(), topology.world.rank(), steps);
    TinyRun run(config, topology);
    const MemoryUse memory = memory_of(run.state().context.arena);
    for (int c = 0; c < num_memory_classes; ++c)
        EXPECT_EQ(memory.bytes[c], plan.rank.memory.bytes[c])
            << what << ", memory, " << name_of(static_cast<MemoryClass>(c));
    for (int i = 0; i < steps; ++i) {
        const Sent sent = step(run);
        for (int g = 0; g < num_traffic_groups; ++g)
            EXPECT_EQ(sent.counted.bytes[g], plan.rank.steps[i].bytes[g])
                << what << ", step " << i << ", " << name_of(static_cast<TrafficGroup>(g));
        const double asked = all_reduce_sum(topology.world, sent.asked),
                     counted = all_reduce_sum(topology.world, total_bytes(sent.counted));
        EXPECT_NEAR(asked, counted, 0.5 * all_reduce_sum(topology.world, sent.reductions)) << what;
        // All-reduces are counted as the mean over ranks.
        EXPECT_TRUE(sent.reductions > 0 || sent.asked == total_bytes(sent.counted)) << what;
        EXPECT_LE(sent.scalars, 256.0 * (topology.world.size() - 1)) << what << ": scalars are not counted";
    }
}

/// Row i of an orthogonal array of 16 runs for 8 factors of two levels: any three of them meet in all eight
/// combinations (the extended Hamming code). In rows 0 to 7, and in 8 to 15, the fourth is the same and any
/// two of the others meet in all four.
std::array<bool, 8> orthogonal_row(int i) {
    const bool a = i & 1, b = i & 2, c = i & 4, d = i & 8;
    const auto odd = [](bool x, bool y, bool z) { return x != (y != z); };
    return {a, b, c, d, odd(a, b, c), odd(a, b, d), odd(a, c, d), odd(b, c, d)};
}

class Plans : public ::testing::TestWithParam<std::string> {};

TEST_P(Plans, BytesAndMemoryAreThoseOfTheRun) {
    const std::string& method = GetParam();
    const bool switches = method == "switchlora", merges = method == "relora";
    const int ranks = ranks_of(MPI_COMM_WORLD);
    for (int tp : tensor_parallel_sizes()) {
        const Topology topology = Topology::create(world(), tp);
        const int share = 12 / topology.dp_size();  // of the global batch
        const int first = ranks > 1 ? (ranks + tp) / 2 % 2 * 8 : 0, end = ranks > 1 ? first + 8 : 16;
        for (int i = first; i < end; ++i) {
            const auto [rotate, ring, shard, recompute, narrow, tied, many, bf16] = orthogonal_row(i);
            const auto text = [](bool value) { return value ? "true" : "false"; };
            std::vector<std::string> arguments{
                "--method.name=" + method,
                "--parallel.tp=" + std::to_string(tp),
                std::string("--parallel.rotate=") + text(rotate),
                std::string("--parallel.shard_frozen=") + text(shard),
                std::string("--model.recompute=") + text(recompute),
                std::string("--model.tie_embeddings=") + text(tied),
                std::string("--optim.gradient_dtype=") + (narrow ? "bf16" : "f32"),
                std::string("--run.dtype=") + (bf16 ? "bf16" : "f32"),
                "--data.micro_batch=" + std::to_string(many ? std::max(1, share / 2) : share),
                "--model.num_layers=3"};
            if (method == "galore") {
                arguments.insert(arguments.end(), {"--method.update_interval=3", "--method.rank=5"});
                arguments.push_back(std::string("--method.basis=") + (recompute ? "svd"
                                                                      : ring    ? "subspace"
                                                                                : "random"));
                arguments.push_back(std::string("--method.refresh_together=") + text(ring));
                arguments.push_back(std::string("--method.projection=") + (rotate ? "local" : "std"));
            }
            if (method == "apollo") {
                arguments.push_back(std::string("--method.scale_by=") + (ring ? "channel" : "tensor"));
                arguments.push_back(std::string("--method.projection=") + (rotate ? "local" : "std"));
            }
            if (method == "melora" && ring)
                arguments.insert(arguments.end(), {"--method.minis=4", "--method.minis_mlp=4",
                                                   "--method.rank=3", "--model.ffn_size=36"});
            if (method == "pclora" && ring)
                arguments.insert(arguments.end(), {"--method.task_weight=1", "--method.bias=false"});
            if (method == "muon" && ring) arguments.push_back("--method.iterations=2");
            if (method == "dora" && ring) arguments.push_back("--method.norm_gradient=exact");
            if (switches) {  // more than a lap of the ring in ten steps
                arguments.insert(arguments.end(), {"--method.switch_interval=2", "--method.freeze_steps=1",
                                                   "--method.switch_ratio=1"});
                arguments.push_back(std::string("--method.switch_order=") + (ring ? "ring" : "random"));
                if (bf16) arguments.push_back(std::string("--method.bank_dtype=") + (many ? "f32" : "bf16"));
            }
            const bool coded = narrow != many;
            if (coded)
                arguments.insert(arguments.end(), {"--optim.state_bits=8", "--optim.min_8bit_size=200"});
            if (merges) {
                arguments.insert(arguments.end(), {"--method.merge_interval=2", "--method.restart_warmup=1"});
                arguments.push_back(std::string("--method.reset=") + (coded  ? "zero"
                                                                      : ring ? "magnitude"
                                                                             : "random"));
            }
            if ((method == "lora" || method == "riemannian" || method == "loft" || switches || merges) &&
                many)
                arguments.push_back(std::string("--method.strategy=") +
                                    (narrow ? "weight_gradient" : "unmerged"));
            std::string what;
            for (const std::string& argument : arguments) what += argument + " ";
            const int steps = switches ? 10 : merges ? 4 : method == "galore" ? 6 : 2;
            expect_as_planned(tiny_config(arguments), topology, steps, what);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, Plans, ::testing::ValuesIn(testing::all_methods()),
                         testing::name_of_method);

/// Sizes that divide by 1 to 4: width 48 everywhere (a multiple of 16: no padding), 48 tokens in the
/// vocabulary, low rank 12; f32.
struct Simple {
    static constexpr double width = 48, vocab = 48, low_rank = 12, layers = 4, batch = 12, seq_len = 8,
                            bytes = 4;
    static constexpr double matrices = 7 * layers;
    static constexpr double tables_and_norms = 2 * vocab * width + (2 * layers + 1) * width;

    static Config config(std::vector<std::string> arguments, int tp) {
        arguments.insert(
            arguments.begin(),
            {"--data.micro_batch=1", "--model.hidden_size=48", "--model.ffn_size=48", "--model.vocab_size=48",
             "--model.num_layers=4", "--run.dtype=f32", "--parallel.tp=" + std::to_string(tp)});
        return tiny_config(arguments);
    }
};

TEST(PlanFormulas, FullRankSendsEveryValueTwice) {
    const Topology topology = Topology::create(world(), 1);
    TinyRun run(Simple::config({"--method.name=full"}, 1), topology);
    const Sent sent = step(run);
    const double p = topology.dp_size();
    const double parameters = Simple::tables_and_norms + Simple::matrices * Simple::width * Simple::width;
    const double one_way = Simple::bytes * parameters * (p - 1) / p;
    EXPECT_EQ(of(sent.counted, TrafficGroup::gradients), one_way);
    EXPECT_EQ(of(sent.counted, TrafficGroup::values), one_way);
    EXPECT_EQ(total_bytes(sent.counted), 2 * one_way);
}

TEST(PlanFormulas, LowRankSendsFactorsAndGathersShardedWeights) {
    const Topology topology = Topology::create(world(), 1);
    TinyRun run(Simple::config({"--method.name=lora", "--method.rank=12", "--parallel.shard_frozen=true"}, 1),
                topology);
    const Sent sent = step(run);
    const double p = topology.dp_size();
    const double parameters =
        Simple::tables_and_norms + Simple::matrices * Simple::low_rank * 2 * Simple::width;
    const double one_way = Simple::bytes * parameters * (p - 1) / p;
    EXPECT_EQ(of(sent.counted, TrafficGroup::gradients), one_way);
    EXPECT_EQ(of(sent.counted, TrafficGroup::values), one_way);
    // Weights of two blocks are still there when the direction changes: 2 L - 2 gathers, then 2 L - 4 for
    // each further micro-batch.
    const double passes = Simple::batch / p;
    const double gathers = 2 * (Simple::layers - 1) + (passes - 1) * 2 * (Simple::layers - 2);
    EXPECT_EQ(of(sent.counted, TrafficGroup::frozen),
              gathers * 7 * Simple::width * Simple::width * Simple::bytes * (p - 1) / p);
}

TEST(PlanFormulas, SwitchingSendsCandidatesAndMovesWhatItSwitches) {
    const Topology topology = Topology::create(world(), 1);
    // With two laps of 24, a vector moves on by one rank, from the last lap back to the first as well. (With
    // four laps on three ranks the move back would end where it began.)
    TinyRun run(Simple::config({"--method.name=switchlora", "--method.rank=24", "--method.switch_interval=4",
                                "--method.freeze_steps=2", "--method.switch_ratio=1"},
                               1),
                topology);
    const double p = topology.dp_size();
    std::int64_t switched = 0;
    for (int i = 0; i < 8; ++i) {
        const Sent sent = step(run);
        const auto vectors = static_cast<double>(sent.result.method.vectors_switched);
        switched += sent.result.method.vectors_switched;
        // m, v and the step counter of every vector go to the next rank, its candidate to all others.
        const double moved = vectors * (2 * Simple::width * Simple::bytes + 4);
        EXPECT_EQ(all_reduce_sum(topology.world, of(sent.counted, TrafficGroup::moves)), p > 1 ? moved : 0);
        const double sent_at_least = vectors * Simple::width * Simple::bytes * (p - 1) / p;
        EXPECT_GE(of(sent.counted, TrafficGroup::candidates), sent_at_least);
        EXPECT_LE(of(sent.counted, TrafficGroup::candidates), 1.5 * sent_at_least);
    }
    EXPECT_GT(switched, 0);
}

TEST(PlanFormulas, AMergeSendsHistogramsOnceAByteOfMagnitudes) {
    const Topology topology = Topology::create(world(), 1);
    TinyRun run(Simple::config({"--method.name=relora", "--method.rank=12", "--method.merge_interval=2",
                                "--method.restart_warmup=1", "--method.reset=magnitude"},
                               1),
                topology);
    const double p = topology.dp_size(), moments = Simple::matrices * 2 * 2;
    const double rows = std::ceil(moments / p) * p;  // every rank sums as many
    for (int i = 0; i < 4; ++i) {
        const Sent sent = step(run);
        const double histograms = 4 * rows * 256 * 8 * 2 * (p - 1) / p;
        EXPECT_EQ(of(sent.counted, TrafficGroup::other), i % 2 ? histograms : 0) << i;
    }
}

TEST(PlanFormulas, TensorParallelSumsActivationsOncePerHalfBlockAndDirection) {
    const int ranks = ranks_of(MPI_COMM_WORLD);
    const Topology topology = Topology::create(world(), ranks);
    TinyRun run(Simple::config({"--method.name=full", "--data.micro_batch=4"}, ranks), topology);
    const Sent sent = step(run);
    const double p = ranks, tokens = Simple::batch * Simple::seq_len;
    // Two half-blocks, forward and backward, the embedding and the head's input.
    const double sums = 4 * Simple::layers + 2;
    EXPECT_EQ(of(sent.counted, TrafficGroup::activations),
              sums * 2 * tokens * Simple::width * Simple::bytes * (p - 1) / p);
    EXPECT_EQ(of(sent.counted, TrafficGroup::loss), tokens * 3 * Simple::bytes * (p - 1));
    EXPECT_EQ(total(sent.counted, {TrafficGroup::gradients, TrafficGroup::values}), 0);
    // Three micro-batches of tokens and targets, and one number with each.
    EXPECT_EQ(of(sent.counted, TrafficGroup::batches),
              3 * std::round((2 * tokens / 3 + 1) * Simple::bytes * (p - 1) / p));
}

TEST(PlanFormulas, ReplicatedFactorsAreReducedOverTheWorld) {
    const int ranks = ranks_of(MPI_COMM_WORLD);
    const Topology topology = Topology::create(world(), ranks);
    TinyRun run(Simple::config({"--method.name=lora", "--method.rank=12"}, ranks), topology);
    const Sent sent = step(run);
    const double p = ranks, factor = Simple::low_rank * Simple::width;  // one side of each matrix
    EXPECT_EQ(of(sent.counted, TrafficGroup::gradients),
              Simple::matrices * factor * Simple::bytes * (p - 1) / p);
    EXPECT_EQ(of(sent.counted, TrafficGroup::values), of(sent.counted, TrafficGroup::gradients));
}

}  // namespace
}  // namespace switchyard

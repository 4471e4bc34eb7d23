// At what share of a plain parallel write's rate is a checkpoint written? The state of the 60m model trained
// with switchlora (low rank 128, initial values) is saved as a run saves it; beside it, in alternating order,
// every rank writes its share of one file of as many bytes from prepared memory, synced and renamed by the
// same rules. Both results are read back.
//
//     bench_checkpoint [f32|bf16] [rounds] [folder] [--tp=1] [--require=0.8]
//     bench_checkpoint [f32|bf16] [rounds] [folder] [--tp=1] --async [--require=1.2]
//
// works in a new folder under `folder` (default: the current one; it decides which disk is written) and
// removes it. With --async: how long does training stand still for a save in the background, beside the copy
// of the same state and its exchange alone? Again in alternating order; --require is then the largest ratio.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "bench_support.hpp"
#include "comm/failure.hpp"
#include "config/option_table.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/state_io.hpp"
#include "kernels/matmul.hpp"
#include "plain_file.hpp"
#include "plan/plan.hpp"
#include "saving/checkpoints.hpp"
#include "watched_calls.hpp"

namespace switchyard {
namespace {

struct Request {
    std::string dtype = "bf16";
    int rounds = 5;
    std::string folder = ".";
    int tp = 1;
    bool async = false;
    double require = 0;
};

Request request_of(int argc, char** argv) {
    Request request;
    int position = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const std::string value = word.substr(std::min(word.size(), word.find('=') + 1));
        if (word.starts_with("--tp="))
            request.tp = std::atoi(value.c_str());
        else if (word == "--async")
            request.async = true;
        else if (word.starts_with("--require="))
            request.require = std::atof(value.c_str());
        else if (!word.starts_with("--") && position == 0)
            request.dtype = word, ++position;
        else if (!word.starts_with("--") && position == 1)
            request.rounds = std::atoi(argv[i]), ++position;
        else if (!word.starts_with("--") && position == 2)
            request.folder = word, ++position;
        else
            request.rounds = 0;
    }
    require((request.dtype == "f32" || request.dtype == "bf16") && request.rounds > 0 && request.tp > 0,
            "use: bench_checkpoint [f32|bf16] [rounds] [folder] [--tp=1] [--async] [--require=0.8]");
    return request;
}

Config configuration(const Request& request, int ranks) {
    Config config = parse_config("", "",
                                 {"--model.preset=60m", "--model.vocab_size=32100", "--data.tokens=none",
                                  "--data.seq_len=512", "--data.micro_batch=1",
                                  fmt::format("--data.global_batch={}", ranks), "--method.name=switchlora",
                                  "--method.rank=128", "--run.keep_last=1", "--run.dtype=" + request.dtype,
                                  fmt::format("--parallel.tp={}", request.tp)},
                                 method_options())
                        .config;
    resolve_auto(config);
    validate(config, ranks);
    return config;
}

/// Time of `work`: that of the slowest rank, with this rank's calls.
template <class Work>
Times timed(const Comm& world, Work work) {
    barrier(world);
    spent = {};
    const double start = seconds_now();
    work();
    Times times = spent;
    times.all = all_reduce_max(world, seconds_now() - start);
    return times;
}

/// A state to be saved again and again, in a folder of its own.
struct SavedState {
    SavedState(const Request& request, const Topology& topology)
        : world(topology.world),
          config(configuration(request, topology.world.size())),
          allocated(allocate_state(config, topology, traffic)),
          state(*allocated->state),
          folder(world, request.folder),
          checkpoints(world, folder.path(), config, {"none", "none"}),
          bytes(checkpoint_bytes(state)) {
        state.initialise();
    }

    void check(const SaveReport& report) const {
        agree_on(world, [&] {
            if (world.rank() != 0) return;
            require(report.problem.empty(), "{}", report.problem);
            const std::vector<std::string> problems = verify_file(report.path);
            require(problems.empty(), "the checkpoint does not verify: {}",
                    problems.empty() ? "" : problems[0]);
            std::uint64_t stored = 0;
            for (const DatasetInfo& dataset : file_contents(report.path).datasets) stored += dataset.bytes;
            require(stored == bytes, "the checkpoint holds {} bytes of values, expected {}", stored, bytes);
        });
    }

    Comm world;
    Config config;  // the file of before is removed as a run removes it
    Traffic traffic;
    std::unique_ptr<AllocatedState> allocated;
    TrainState& state;
    WorkFolder folder;
    Checkpoints checkpoints;
    std::uint64_t bytes;  // of values
};

/// Saves the state as a run does, alternating with the plain file.
class Contest {
  public:
    Contest(const Request& request, const Topology& topology)
        : saved_(request, topology),
          world_(saved_.world),
          plain_(world_, saved_.folder.path(), saved_.bytes),
          bytes(saved_.bytes) {}

    void round(bool plain_first, bool counts) {
        Times plain;
        if (plain_first) plain = write_plain();
        const Times saved = save();
        if (!plain_first) plain = write_plain();
        if (!counts) return;
        checkpoint.push_back(saved);
        plain_write.push_back(plain);
    }

    /// Seconds for the checksums alone of as many values as this rank writes.
    double checksum_s() {
        std::vector<std::uint64_t>& words = plain_.memory();
        const auto count = static_cast<std::int64_t>(2 * words.size());
        const double start = seconds_now();
        const std::uint64_t sum =
            checksum({"plain", {count}, 0, 0, count, 1, 0}, HostBlock{words.data(), DType::f32, {count}});
        const double took = seconds_now() - start;
        require(sum != 0, "the checksum of mixed words is 0: it was not computed");
        return took;
    }

  private:
    Times save() {
        ++saved_.state.step;
        SaveReport report;
        const Times times = timed(world_, [&] { report = saved_.checkpoints.save(saved_.state, 0); });
        saved_.check(report);
        remove(report.path);
        return times;
    }

    void remove(const std::string& path) const {
        barrier(world_);
        agree_on(world_, [&] {
            if (world_.rank() == 0) std::filesystem::remove(path);
        });
    }

    Times write_plain() {
        const Times times = timed(world_, [&] { plain_.write(); });
        plain_.check();
        remove(plain_.path());
        return times;
    }

    SavedState saved_;
    const Comm& world_;
    PlainFile plain_;

  public:
    const std::uint64_t bytes;  // bytes of values in either file
    std::vector<Times> checkpoint, plain_write;
};

/// Saves the state in the background, alternating with the part of it for which training has to stand still.
class Standstill {
  public:
    Standstill(const Request& request, const Topology& topology) : saved_(request, topology) {
        const std::string problem = saved_.checkpoints.save_in_background(topology, saved_.bytes);
        require<AgreedError>(problem.empty(), "no save in the background here: {}", problem);
    }

    void round(bool copy_first, bool counts) {
        Times copied;
        if (copy_first) copied = copy();
        const SaveReport report = save();
        if (!copy_first) copied = copy();
        if (!counts) return;
        copies.push_back(copied.all);
        stalls.push_back(report.stalled);
        saves.push_back(report.seconds);
        finishes.push_back(finish_);
    }

    std::uint64_t bytes() const { return saved_.bytes; }

    std::vector<double> copies, stalls, saves;  // s, of the slowest rank
    std::vector<Times> finishes;                // the last part of a stall, on this rank

  private:
    /// Until the values are where the background would take over.
    Times copy() const {
        CheckpointWriter writer(saved_.world, saved_.folder.path() + "/copied",
                                static_cast<std::uint64_t>(saved_.config.io.window));
        return timed(saved_.world, [&] {
            StateIo io(writer);
            saved_.state.visit(io);
            writer.stage();
        });
    }

    SaveReport save() {
        ++saved_.state.step;
        barrier(saved_.world);
        saved_.checkpoints.begin(saved_.state, 0);
        std::optional<SaveReport> report;
        while (!report) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a step
            spent = {};
            const double start = seconds_now();
            report = saved_.checkpoints.ended(Checkpoints::Wait::no);
            finish_ = spent;
            finish_.all = seconds_now() - start;
        }
        saved_.check(*report);
        return *report;
    }

    SavedState saved_;
    Times finish_;
};

std::vector<double> each(const std::vector<Times>& rounds, double (*value)(const Times&)) {
    std::vector<double> values;
    for (const Times& times : rounds) values.push_back(value(times));
    return values;
}

void print_parts(const Contest& contest, double checksum_s) {
    const auto line = [&](const char* what, double (*part)(const Times&)) {
        fmt::print("  {:<44} {:>10.3f} {:>10.3f}\n", what, median(each(contest.checkpoint, part)),
                   median(each(contest.plain_write, part)));
    };
    fmt::print("\n  {:<44} {:>10} {:>10}\n", "s of rank 0, medians", "checkpoint", "plain");
    line("writing", [](const Times& x) { return x.write; });
    line("fsync", [](const Times& x) { return x.sync; });
    line("messages and waiting for other ranks", [](const Times& x) { return x.messages; });
    line("the rest: rows, conversion, checksums, HDF5", [](const Times& x) { return x.rest(); });
    line("all", [](const Times& x) { return x.all; });
    fmt::print("  {:<44} {:>10.3f}\n", "checksums of as many values alone", checksum_s);
}

void print_title(const Request& request, const Topology& topology, std::uint64_t bytes) {
    fmt::print(
        "checkpoint of 60m, switchlora, {}: {:.1f} MB; {} rank(s), tp {}, {} thread(s), {} rounds: median "
        "(lowest to highest)\n",
        request.dtype, static_cast<double>(bytes) / 1e6, topology.world.size(), request.tp,
        kernels::num_threads(), request.rounds);
}

/// True if the ratio is at most the required one; the same on all ranks.
bool run_async(const Request& request, const Topology& topology) {
    Standstill contest(request, topology);
    for (int i = 0; i <= request.rounds; ++i) contest.round(i % 2 == 0, i > 0);  // the first one warms up
    std::vector<double> ratios;
    for (int i = 0; i < request.rounds; ++i) ratios.push_back(contest.stalls[i] / contest.copies[i]);
    const bool enough = request.require <= 0 || median(ratios) <= request.require;
    if (topology.world.rank() != 0) return enough;
    print_title(request, topology, contest.bytes());
    fmt::print("  save in the background, from its beginning to its name   {} s\n", spread(contest.saves, 3));
    fmt::print("  training stood still                                     {} s\n",
               spread(contest.stalls, 3));
    fmt::print("  copy and exchange alone                                  {} s\n",
               spread(contest.copies, 3));
    fmt::print("  stood still / copy and exchange                          {}\n", spread(ratios, 3));
    const auto part = [&](double (*value)(const Times&)) { return median(each(contest.finishes, value)); };
    fmt::print(
        "  of it the end, on rank 0: {:.4f} s (fsync {:.4f}, messages {:.4f}, writing {:.4f}, rest {:.4f})\n",
        part([](const Times& x) { return x.all; }), part([](const Times& x) { return x.sync; }),
        part([](const Times& x) { return x.messages; }), part([](const Times& x) { return x.write; }),
        part([](const Times& x) { return x.rest(); }));
    if (!enough) fmt::print(stderr, "above the required ratio {}\n", request.require);
    return enough;
}

/// True if the ratio is at least the required one; the same on all ranks.
bool run(const Request& request) {
    const Topology topology = Topology::create(Comm::duplicate(MPI_COMM_WORLD), request.tp);
    if (request.async) return run_async(request, topology);
    Contest contest(request, topology);
    for (int i = 0; i <= request.rounds; ++i) contest.round(i % 2 == 0, i > 0);  // the first one warms up
    const double checksum_s = contest.checksum_s();
    std::vector<double> ratios;
    for (int i = 0; i < request.rounds; ++i)
        ratios.push_back(contest.plain_write[i].all / contest.checkpoint[i].all);
    const bool enough = median(ratios) >= request.require;
    if (topology.world.rank() != 0) return enough;
    const auto rates = [&](const std::vector<Times>& rounds) {
        std::vector<double> rates = each(rounds, [](const Times& x) { return x.all; });
        for (double& rate : rates) rate = static_cast<double>(contest.bytes) / rate / 1e6;
        return spread(rates, 0);
    };
    print_title(request, topology, contest.bytes);
    fmt::print("  checkpoint             {} MB/s\n", rates(contest.checkpoint));
    fmt::print("  plain parallel write   {} MB/s\n", rates(contest.plain_write));
    fmt::print("  checkpoint / plain     {}\n", spread(ratios, 3));
    print_parts(contest, checksum_s);
    if (!enough) fmt::print(stderr, "below the required ratio {}\n", request.require);
    return enough;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
    using namespace switchyard;
    MpiSession session(argc, argv);
    int rank = 0;
    try {
        rank = Comm::duplicate(MPI_COMM_WORLD).rank();
        return run(request_of(argc, argv)) ? 0 : 1;
    } catch (const std::exception& error) {
        wait_for_lower_ranks(rank, error);  // rank 0 removes the folder first
        abort_all_ranks(rank, message_of(error));
    }
}

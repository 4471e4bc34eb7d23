// Loading verifies a file: all ranks together compare the checksum of every dataset.
#include "saving/checkpoints.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "comm/collectives.hpp"
#include "comm/messages.hpp"
#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/host_memory.hpp"
#include "core/output.hpp"
#include "core/timer.hpp"
#include "core/units.hpp"
#include "io/checkpoint/state_io.hpp"
#include "io/files/files.hpp"
#include "methods/registry.hpp"
#include "saving/background_writer.hpp"

namespace switchyard {
namespace {

constexpr const char* damaged_suffix = ".damaged";
constexpr const char* diverged_suffix = ".diverged";

}  // namespace

struct Checkpoints::Save {
    SaveReport report;
    double start_s = seconds_now();
    std::uint64_t collectives = 0;
    std::optional<CheckpointWriter> writer;
    std::optional<BackgroundWriter> background;  // after the writer, so that it is destroyed first
};

Checkpoints::Checkpoints(const Comm& world, std::string directory, const Config& config, DataIdentity data)
    : world_(world), directory_(std::move(directory)), config_(config), data_(std::move(data)) {
    if (world_.rank() != 0) return;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory_, ignored))
        if (entry.path().extension() == ".partial") std::filesystem::remove(entry.path(), ignored);
}

Checkpoints::~Checkpoints() = default;

std::string Checkpoints::save_in_background(const Topology& topology, std::uint64_t file_bytes) {
    const double needed = static_cast<double>(staged_bytes(file_bytes, world_.size(), config_.io.window)) *
                          topology.node.size();
    // Nobody can tell how much other processes of the node will still need, so some memory stays free.
    const double left = 0.9 * available_bytes() - needed;
    std::string problem;
    if (left < 0)
        problem = fmt::format("{} on {} for a copy of the state, {} are available", bytes_text(needed),
                              host_name(), bytes_text(available_bytes()));
    const FirstText found = first_text(world_, problem);
    in_background_ = found.ranks == 0;
    return found.text;
}

void Checkpoints::begin(TrainState& state, std::int64_t first_sample, bool held) {
    start(state, first_sample, in_background_);
    if (in_background_ && save_->report.problem.empty()) save_->background.emplace(*save_->writer, held);
}

void Checkpoints::start(TrainState& state, std::int64_t first_sample, bool in_background) {
    internal_check(!save_, "a save begins while another is under way");
    removal_ = {};  // waits for its end: then the space of old files is free
    save_ = std::make_unique<Save>();
    Save& save = *save_;
    save.report.step = state.step;
    save.report.path = checkpoint_path(directory_, state.step);
    CheckpointWriter& writer =
        save.writer.emplace(world_, save.report.path, static_cast<std::uint64_t>(config_.io.window));
    const std::int64_t samples = state.step * config_.data.global_batch;
    write_header(writer,
                 {state.step, samples * config_.data.seq_len, first_sample + samples,
                  config_text(config_, method_options()), config_.run.dtype, data_},
                 config_.run.seed, state.context.topology);
    StateIo io(writer);
    state.visit(io);
    try {
        const std::uint64_t before = host_collectives();
        if (in_background) {
            writer.stage();
            save.collectives = host_collectives() - before;
        } else {
            finish(save);
        }
    } catch (const UserError& error) {
        save.report.problem = error.what();
    }
    save.report.stalled = seconds_now() - save.start_s;
}

/// Commits and removes old files. Throws on all ranks alike.
void Checkpoints::finish(Save& save) {
    const std::uint64_t before = host_collectives();
    save.report.bytes = save.writer->commit();
    newest_step_ = save.report.step;
    agree_on(world_, [&] {
        if (world_.rank() == 0) remove_old_files(save.report.bytes, save.background.has_value());
    });
    save.collectives += host_collectives() - before;
}

bool Checkpoints::under_way() const {
    return save_ && save_->background;
}

std::optional<SaveReport> Checkpoints::ended(Wait wait) {
    if (!save_) return std::nullopt;
    Save& save = *save_;
    if (save.background) {
        if (wait == Wait::no && all_reduce_min(world_, save.background->done()) == 0) return std::nullopt;
        const double start = seconds_now();
        save.background->wait();
        try {
            finish(save);
        } catch (const UserError& error) {
            save.report.problem = error.what();
        }
        save.report.stalled += seconds_now() - start;
    }
    save.report.seconds = all_reduce_max(world_, seconds_now() - save.start_s);
    save.report.stalled = all_reduce_max(world_, save.report.stalled);
    if (save.report.problem.empty()) count_calls_of(save);
    const SaveReport report = save.report;
    save_.reset();
    return report;
}

std::string counts_line(const SaveReport::Counts& counts, int ranks) {
    return fmt::format(
        "calls       save: {} collectives and {} rounds; {} writes for {} windows, at most {} a rank; at "
        "most {} "
        "bytes a rank, {:.0f} on average",
        counts.collectives, counts.rounds, counts.writes, counts.windows, counts.most_writes,
        counts.most_bytes, static_cast<double>(counts.bytes) / ranks);
}

void Checkpoints::count_calls_of(Save& save) const {
    if (!counting_calls()) return;
    SaveReport::Counts& counts = save.report.counts.emplace();
    counts.collectives = save.collectives;
    counts.rounds = save.writer->rounds();
    const auto window = static_cast<std::uint64_t>(config_.io.window);
    counts.windows = (save.report.bytes + window - 1) / window;
    for (const CheckpointWriter::Written& one : gather_values(world_, save.writer->written())) {
        counts.most_writes = std::max(counts.most_writes, one.writes);
        counts.writes += one.writes;
        counts.most_bytes = std::max(counts.most_bytes, one.bytes);
        counts.bytes += one.bytes;
    }
}

SaveReport Checkpoints::save(TrainState& state, std::int64_t first_sample) {
    start(state, first_sample, false);
    const SaveReport report = *ended(Wait::yes);
    if (!report.problem.empty()) throw AgreedError(report.problem);
    return report;
}

void Checkpoints::remove_old_files(std::uint64_t newest_bytes, bool in_background) {
    const auto files = list_checkpoints(directory_);
    if (files.empty() || files.front().first < newest_step_) return;
    const std::string newest = checkpoint_path(directory_, newest_step_);
    const std::uint64_t bytes = size_of_file(open_regular(newest), newest);
    require(bytes == newest_bytes,
            "`{}` has {} bytes instead of the {} just written (older checkpoints are kept); check the file "
            "system",
            newest, bytes, newest_bytes);
    std::int64_t kept = 0;
    std::vector<std::string> old;
    for (const auto& [step, path] : files) {
        if (step > newest_step_) continue;  // of a history that this run has left: the user decides
        const bool for_good = config_.run.keep_every > 0 && step % config_.run.keep_every == 0;
        if (++kept > config_.run.keep_last && !for_good) old.push_back(path);
    }
    removal_ = std::jthread([old = std::move(old)] {  // begins after the one before has ended
        for (const std::string& path : old) ::unlink(path.c_str());
    });
    if (!in_background) removal_.join();
}

std::string Checkpoints::newest_file() const {
    std::string path;
    agree_on(world_, [&] {
        if (world_.rank() != 0) return;
        const auto files = list_checkpoints(directory_);
        if (!files.empty()) {
            path = files.front().second;
            return;
        }
        const std::filesystem::directory_iterator folder(directory_);
        std::int64_t damaged = 0, diverged = 0;
        for (const auto& entry : folder) {
            damaged += entry.path().extension() == damaged_suffix;
            diverged += entry.path().extension() == diverged_suffix;
        }
        require(
            damaged == 0 || diverged > 0,
            "all {} checkpoints in `{}` are damaged (the run cannot go on from any of them); restore one, "
            "or use another run.dir to start anew",
            damaged, directory_);
        require(diverged == 0,
                "no checkpoint in `{}` is good: {} diverged, {} damaged (the run cannot go on from any of "
                "them); use another run.dir to start anew, with a lower optim.lr or a longer warm-up",
                directory_, diverged, damaged);
    });
    return broadcast(world_, path);
}

std::string Checkpoints::advice_after_divergence(std::int64_t step) {
    std::string advice;
    agree_on(world_, [&] {
        if (world_.rank() != 0) return;
        removal_ = {};  // has ended
        std::string files = "nothing of it is kept", good;
        for (const auto& [of_step, path] : list_checkpoints(directory_)) {
            if (of_step > step || of_step > newest_step_) continue;  // of another history
            if (of_step < step) {
                good = path;
                files += fmt::format("; the newest good checkpoint is `{}` of step {}", path, of_step);
                break;
            }
            // The step after this checkpoint is the one that diverged.
            if (std::rename(path.c_str(), (path + diverged_suffix).c_str()) == 0)
                files +=
                    fmt::format("; checkpoint `{}` leads here and is now called *{}", path, diverged_suffix);
            else
                files += fmt::format("; checkpoint `{}` leads here", path);
        }
        advice = good.empty()
                     ? fmt::format(
                           "({}; there is no good checkpoint before it); start anew in another run.dir "
                           "with a lower optim.lr or optim.dense_lr, a longer optim.warmup_steps, or "
                           "optim.clip_norm",
                           files)
                     : fmt::format(
                           "({}); start the same run again with a lower optim.lr or optim.dense_lr to go "
                           "on from there{}",
                           files,
                           is_supported(config_, Use::take_state)
                               ? fmt::format(", or change more in a new run: --run.dir=OTHER "
                                             "--run.init_from={} --run.init_state=all",
                                             good)
                               : "");
    });
    return broadcast(world_, advice);
}

void Checkpoints::set_aside(const std::string& path, const std::string& problem) const {
    agree_on(world_, [&] {
        if (world_.rank() != 0) return;
        const std::string kept = path + damaged_suffix;
        print_error("warning: checkpoint is damaged: {}\n  it is kept as {}; trying the one before", problem,
                    kept);
        require(
            std::rename(path.c_str(), kept.c_str()) == 0,
            "cannot rename damaged checkpoint `{}`: {} (it would be tried again); make its folder writable",
            path, system_reason);
    });
}

std::optional<std::string> Checkpoints::restore(TrainState& state, const Check& check,
                                                const CheckpointReader::Progress& progress) {
    for (;;) {
        const std::string path = newest_file();
        if (path.empty()) return std::nullopt;
        try {
            const CheckpointReader reader(world_, path, static_cast<std::uint64_t>(config_.io.window));
            const CheckpointHeader header = agreed(world_, [&] { return header_of(reader); });
            agree_on(world_, [&] { check(header, path); });
            StateIo io(reader);
            state.step = header.step;
            state.visit(io, progress);
            newest_step_ = header.step;
            return path;
        } catch (const DamageError& error) {
            set_aside(path, error.what());
        }
    }
}

}  // namespace switchyard

// Plain POSIX calls, like those of a save. Only rank 0 creates and removes the file.
#include "selftest/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "comm/messages.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/rng.hpp"
#include "core/timer.hpp"
#include "core/units.hpp"
#include "io/files/files.hpp"

namespace switchyard::selftest {
namespace {

/// The file's cut into blocks: block b of rank p is block b * ranks + p of the file.
struct Blocks {
    int ranks = 1;
    std::int64_t count = 4;  // of each rank
    std::int64_t bytes = 0;  // of one, a multiple of 8

    std::uint64_t offset(std::int64_t block, int rank) const {
        return static_cast<std::uint64_t>((block * ranks + rank) * bytes);
    }
    double all_bytes() const { return static_cast<double>(count * ranks * bytes); }
};

Blocks blocks_of(const Setting& setting) {
    constexpr std::int64_t most_of_file = 1 << 30, longest = 4 << 20, shortest = 4 << 10;
    Blocks blocks{.ranks = setting.topology.world.size()};
    const std::int64_t fitting = std::max(shortest, most_of_file / (blocks.count * blocks.ranks));
    blocks.bytes = std::min({setting.config.io.window, longest, fitting}) / 8 * 8;
    return blocks;
}

std::uint64_t word_at(std::uint64_t offset) {
    return mix64(offset + 0x5357495443485944ull);
}

/// Removes the file when the test is over, however it ends.
struct TemporaryFile {
    std::string path;  // empty on ranks that do not own it
    void remove() {
        if (!path.empty()) ::unlink(path.c_str());
        path.clear();
    }
    ~TemporaryFile() { remove(); }
};

void write_blocks(const Setting& setting, const Blocks& blocks, const std::string& path) {
    FileDescriptor file(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    require(file >= 0,
            "cannot open `{}`, which rank 0 created ({}); all ranks must see one folder: choose "
            "another run.dir",
            path, system_reason);
    std::vector<std::uint64_t> words(static_cast<std::size_t>(blocks.bytes / 8));
    for (std::int64_t block = 0; block < blocks.count; ++block) {
        const std::uint64_t offset = blocks.offset(block, setting.topology.world.rank());
        for (std::size_t i = 0; i < words.size(); ++i) words[i] = word_at(offset + 8 * i);
        const std::string error = write_fully(file, reinterpret_cast<const std::byte*>(words.data()),
                                              static_cast<std::size_t>(blocks.bytes), offset);
        require(error.empty(), "cannot write `{}` ({}); free space or choose another run.dir", path, error);
    }
    require(::fsync(file) == 0, "cannot sync `{}` ({}); choose another run.dir", path, system_reason);
    // What is read afterwards should come from the file system, not from this node's memory.
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    require(file.close() == 0, "cannot close `{}` ({}); choose another run.dir", path, system_reason);
}

/// Reads the blocks of the next rank, which on most layouts was written by another process.
void read_blocks(const Setting& setting, const Blocks& blocks, const std::string& path) {
    const Comm& world = setting.topology.world;
    const FileDescriptor file = open_regular(path);
    std::vector<std::uint64_t> words(static_cast<std::size_t>(blocks.bytes / 8));
    for (std::int64_t block = 0; block < blocks.count; ++block) {
        const std::uint64_t offset = blocks.offset(block, (world.rank() + 1) % world.size());
        const std::string error = read_fully(file, reinterpret_cast<std::byte*>(words.data()),
                                             static_cast<std::size_t>(blocks.bytes), offset);
        require(error.empty(), "cannot read `{}` ({}); choose another run.dir", path, error);
        for (std::size_t i = 0; i < words.size(); ++i)
            require(words[i] == word_at(offset + 8 * i),
                    "`{}` was written, but other bytes were read at {} (checkpoints there would be damaged); "
                    "choose another file system for run.dir, and tell its administrators",
                    path, offset + 8 * i);
    }
}

/// A line without a result; with `problem`, one that fails.
Line file_line(const char* name, const std::string& folder, const Blocks& blocks,
               const std::string& problem) {
    Line line{.section = "files", .name = name, .result = "in " + folder, .advice = problem};
    if (!problem.empty()) line.verdict = Verdict::failed;
    line.numbers = {{"operation", name},
                    {"folder", folder},
                    {"file_bytes", blocks.all_bytes()},
                    {"block_bytes", blocks.bytes},
                    {"ranks", blocks.ranks}};
    return line;
}

/// A line about `work` on all ranks; its seconds are those from a common start to the end of the last rank.
Line timed_line(const Setting& setting, const char* name, const std::string& folder, const Blocks& blocks,
                const std::function<void()>& work) {
    const Comm& world = setting.topology.world;
    barrier(world);
    const double start_s = seconds_now();
    const std::string problem = problem_of(setting, work);
    const double seconds = std::max(1e-9, all_reduce_max(world, seconds_now() - start_s));
    Line line = file_line(name, folder, blocks, problem);
    if (!problem.empty()) return line;
    const double rate = blocks.all_bytes() / seconds;
    line.numbers["seconds"] = seconds;
    line.numbers["bytes_per_s"] = rate;
    line.result = fmt::format("{}B/s, {} ranks together, in {}", count_text(rate), blocks.ranks, folder);
    line.verdict = verdict_of_rate(rate, least_file_rate);
    if (line.verdict == Verdict::slow)
        line.advice = fmt::format(
            "{}B/s is little for a file system (a save of 1 GiB takes {}); put run.dir on the machine's "
            "parallel file system, stripe its folder (docs/clusters.md), or save less often",
            count_text(rate), duration_text(1073741824.0 / rate));
    return line;
}

}  // namespace

std::string nearest_folder(const std::string& directory) {
    std::filesystem::path path = std::filesystem::absolute(directory).lexically_normal();
    std::error_code error;
    while (path.has_relative_path() && !std::filesystem::is_directory(path, error)) path = path.parent_path();
    return path.string();
}

std::vector<Line> file_lines(const Setting& setting) {
    const Comm& world = setting.topology.world;
    const Blocks blocks = blocks_of(setting);
    const std::string folder = text_of_root(world, [&] { return nearest_folder(setting.config.run.dir); });
    TemporaryFile temporary;
    const std::string path = text_of_root(
        world, [&] { return fmt::format("{}/.switchyard_selftest.{}.{}", folder, host_name(), ::getpid()); });
    std::vector<Line> lines;
    const std::string refused = problem_of(setting, [&] {
        if (world.rank() != 0) return;
        try {
            create_anew(path);
        } catch (const UserError& error) {
            fail("{}; choose another run.dir", without_advice(error.what()));
        }
        temporary.path = path;
    });
    if (!refused.empty()) return {file_line("write", folder, blocks, refused)};
    lines.push_back(
        timed_line(setting, "write", folder, blocks, [&] { write_blocks(setting, blocks, path); }));
    if (lines.back().verdict != Verdict::failed)
        lines.push_back(
            timed_line(setting, "read", folder, blocks, [&] { read_blocks(setting, blocks, path); }));
    temporary.remove();
    barrier(world);  // no rank goes on while the file is still there
    return lines;
}

}  // namespace switchyard::selftest

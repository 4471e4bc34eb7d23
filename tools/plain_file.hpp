// A plain parallel write, for comparison: one file, each rank one stretch of it, in its memory before the
// clock starts; synced by all ranks, renamed, folder synced. And the folder that such files are written in.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"

namespace switchyard {

/// A new folder that all ranks know; rank 0 removes it with everything in it.
class WorkFolder {
  public:
    WorkFolder(const Comm& world, const std::string& parent) : root_(world.rank() == 0) {
        std::string path = parent + "/bench_checkpoint.XXXXXX";
        agree_on(world, [&] {
            require(!root_ || ::mkdtemp(path.data()) != nullptr, "cannot make a folder in `{}` {}", parent,
                    system_problem);
        });
        path_ = broadcast(world, path);
    }
    ~WorkFolder() {
        std::error_code ignored;
        if (root_) std::filesystem::remove_all(path_, ignored);
    }
    WorkFolder(const WorkFolder&) = delete;
    WorkFolder& operator=(const WorkFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    bool root_;
    std::string path_;
};

class PlainFile {
  public:
    PlainFile(const Comm& world, const std::string& folder, std::uint64_t bytes)
        : world_(world), folder_(folder), path_(folder + "/plain") {
        const auto rank = static_cast<std::uint64_t>(world.rank()),
                   ranks = static_cast<std::uint64_t>(world.size());
        begin_ = bytes / ranks * rank;
        end_ = rank + 1 == ranks ? bytes : begin_ + bytes / ranks;
        total_ = bytes;
        words_.resize((end_ - begin_ + 7) / 8);
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] = mix64(begin_ + i);
    }

    void write() const {
        const bool root = world_.rank() == 0;
        const std::string partial = path_ + ".partial";
        int fd = -1;
        const auto open = [&](int flags) {
            fd = ::open(partial.c_str(), flags | O_WRONLY | O_CLOEXEC, 0666);
            require(fd >= 0, "cannot open {} {}", partial, system_problem);
        };
        agree_on(world_, [&] { root ? open(O_CREAT | O_TRUNC) : void(); });
        agree_on(world_, [&] { root ? void() : open(0); });
        agree_on(world_, [&] {
            for (std::uint64_t at = begin_; at < end_;) {
                const ssize_t done = ::pwrite(fd, data() + (at - begin_), std::min(end_ - at, call_bytes),
                                              static_cast<off_t>(at));
                require(done > 0, "cannot write {} {}", partial, system_problem);
                at += static_cast<std::uint64_t>(done);
            }
            require(::fsync(fd) == 0 && ::close(fd) == 0, "cannot sync {} {}", partial, system_problem);
        });
        agree_on(world_, [&] {
            if (!root) return;
            const int directory = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            require(std::rename(partial.c_str(), path_.c_str()) == 0 && directory >= 0 &&
                        ::fsync(directory) == 0 && ::close(directory) == 0,
                    "cannot rename {} {}", partial, system_problem);
        });
    }

    /// Throws on all ranks unless the file holds every rank's memory and no more.
    void check() const {
        agree_on(world_, [&] {
            require(std::filesystem::file_size(path_) == total_, "{} has {} bytes, expected {}", path_,
                    std::filesystem::file_size(path_), total_);
            const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path_.c_str(), "rb"),
                                                                       std::fclose);
            require(file && std::fseek(file.get(), static_cast<long>(begin_), SEEK_SET) == 0,
                    "cannot read {} {}", path_, system_problem);
            std::vector<char> block(1 << 20);
            for (std::uint64_t at = begin_; at < end_; at += block.size()) {
                const std::size_t count = std::min<std::uint64_t>(block.size(), end_ - at);
                require(std::fread(block.data(), 1, count, file.get()) == count &&
                            std::memcmp(block.data(), data() + (at - begin_), count) == 0,
                        "{} does not hold what was written from byte {} on", path_, at);
            }
        });
    }

    const std::string& path() const { return path_; }

    /// This rank's stretch.
    std::vector<std::uint64_t>& memory() { return words_; }

  private:
    static constexpr std::uint64_t call_bytes = 64 << 20;
    const char* data() const { return reinterpret_cast<const char*>(words_.data()); }

    const Comm& world_;
    std::string folder_, path_;
    std::uint64_t begin_ = 0, end_ = 0, total_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace switchyard

// The list of targets, and the folder for their files.
#include "fuzz/targets.hpp"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "fuzz/target_list.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard::fuzz {

const std::string& folder() {
    // The folder is in memory if possible, because many of the files are synced.
    static const int in_memory = ::access("/dev/shm", W_OK) == 0 ? ::setenv("TMPDIR", "/dev/shm", 0) : 0;
    (void)in_memory;
    static const test::TemporaryDirectory directory;
    return directory.path();
}

std::string file_of(const std::string& name, const std::string& bytes) {
    std::string path = folder() + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

const std::vector<Target>& targets() {
    static const std::vector<Target> all = [] {
        std::vector<Target> list = text_targets();
        for (Target& target : hdf5_targets()) list.push_back(std::move(target));
        return list;
    }();
    return all;
}

const Target& target_of(const std::string& name) {
    std::string names;
    for (const Target& target : targets()) {
        if (name == target.name) return target;
        names += std::string(" ") + target.name;
    }
    throw std::invalid_argument("no fuzz target '" + name + "'; there are:" + names);
}

}  // namespace switchyard::fuzz

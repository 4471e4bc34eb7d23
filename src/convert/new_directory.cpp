#include "convert/new_directory.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "io/files/files.hpp"

namespace switchyard {

NewDirectory::NewDirectory(const Comm& world, const std::string& path)
    : path_(path), partial_(path + ".partial") {
    agree_on(world, [&] {
        if (world.rank() != 0) return;
        std::error_code refused;  // then the folder cannot be made either
        require(!std::filesystem::exists(std::filesystem::symlink_status(path_, refused)),
                "`{}` exists (nothing is overwritten); give another name or remove it", path_);
        const bool made = ::mkdir(partial_.c_str(), 0777) == 0;
        require(made || errno != EEXIST,
                "`{}` exists (another export writes there, or was cut off); remove it if none runs",
                partial_);
        require(made, "cannot make `{}` {}", partial_, system_problem);
        made_ = true;
    });
}

NewDirectory::~NewDirectory() {
    std::error_code ignored;
    if (made_) std::filesystem::remove_all(partial_, ignored);
}

void NewDirectory::make_folder(const std::string& name) const {
    require(::mkdir(file(name).c_str(), 0777) == 0, "cannot make `{}` {}", file(name), system_problem);
}

void NewDirectory::write_json(const std::string& name, const nlohmann::ordered_json& value) const {
    write_file(file(name), value.dump(2) + "\n");
}

void NewDirectory::commit() {
    sync_directory(partial_);
    require(std::rename(partial_.c_str(), path_.c_str()) == 0, "cannot rename `{}` to `{}` {}", partial_,
            path_, system_problem);
    made_ = false;
    sync_directory(directory_of(path_));
}

}  // namespace switchyard

// A directory that is there when it is complete.
#pragma once

#include <string>

#include "comm/comm.hpp"
#include "io/files/strict_json.hpp"

namespace switchyard {

/// A directory under a temporary name, NAME.partial, until commit() gives it its own. Rank 0 makes, names and,
/// where it was not committed, removes it; all ranks may write files into it.
class NewDirectory {
  public:
    /// Collective over `world`. Throws UserError on every rank if `path` or NAME.partial exists or cannot be
    /// made.
    NewDirectory(const Comm& world, const std::string& path);
    ~NewDirectory();
    NewDirectory(const NewDirectory&) = delete;
    NewDirectory& operator=(const NewDirectory&) = delete;

    std::string file(const std::string& name) const { return partial_ + "/" + name; }
    void make_folder(const std::string& name) const;
    void write_json(const std::string& name, const nlohmann::ordered_json& value) const;
    /// On rank 0, when all ranks have written.
    void commit();

  private:
    std::string path_, partial_;
    bool made_ = false;
};

}  // namespace switchyard

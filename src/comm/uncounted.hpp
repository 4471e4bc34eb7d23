// Uncounted: collectives within its scope leave no trace in a rank's Traffic: those of the start or of a load are
// no part of a step.
#pragma once

#include <utility>

#include "comm/collectives.hpp"

namespace switchyard {

class Uncounted {
  public:
    explicit Uncounted(Traffic& traffic) : traffic_(traffic), kept_(std::exchange(traffic, {})) {}
    ~Uncounted() { traffic_ = kept_; }
    Uncounted(const Uncounted&) = delete;
    Uncounted& operator=(const Uncounted&) = delete;

  private:
    Traffic& traffic_;
    Traffic kept_;
};

}  // namespace switchyard

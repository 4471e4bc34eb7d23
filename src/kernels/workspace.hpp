// Memory of the back end in which kernels work for the length of a call, beside their arguments. A state
// lends it to them out of its arena, so that `plan` counts it and nothing is allocated in a step.
#pragma once

#include "core/arena.hpp"

namespace switchyard::kernels {

/// Enough for any call of a run; 0 for a back end that needs none. Without a loan kernels allocate it.
std::size_t workspace_bytes();

/// Kernels may use it from now on, and no more. Each back end defines both; only the order of its calls says
/// when a call is over, so every call ends before the memory does.
void lend_workspace(Tensor);
void take_back_workspace(Tensor);

/// A loan for as long as it lives. Over a measuring arena it only counts.
class Workspace {
  public:
    explicit Workspace(Arena&);
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

  private:
    Tensor memory_;
};

}  // namespace switchyard::kernels

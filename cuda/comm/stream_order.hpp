// Order between the compute stream, the communication stream and the host. A collective starts when the
// compute stream has done what was called before it, and the compute stream goes on after wait() when the
// collective is done: whoever writes a buffer that is sent, or reads one that is received, needs no event of
// his own.
#pragma once

#include <cuda_runtime.h>

namespace switchyard::cuda {

/// A point on a stream: now, for the work that was called there so far.
class Mark {
  public:
    explicit Mark(cudaStream_t stream);
    ~Mark();
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;

    /// `stream` goes on when the point has passed; the host does not wait.
    void hold(cudaStream_t stream) const;
    /// The host waits.
    void wait() const;

  private:
    cudaEvent_t event_;
};

}  // namespace switchyard::cuda

// A graph of operations for cuDNN, built through its C interface, and the plan that computes it. Descriptors
// are never destroyed: a process makes a few graphs, and the driver may have ended before it does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/kernels/attention/cudnn/library.hpp"

namespace switchyard::cuda::cudnn {

/// cuDNN refuses, in words that need a sentence around them.
struct Refusal : std::runtime_error {
    using std::runtime_error::runtime_error;
};
/// Throws Refusal unless it is success; `when`: "a plan is made".
void check(cudnnStatus_t, const std::string& when);

using Extent = std::array<std::int64_t, 4>;

/// An array with four dimensions. One within the graph has no address.
struct Array {
    cudnnBackendDescriptor_t descriptor = nullptr;
};

struct Plan {
    cudnnBackendDescriptor_t descriptor = nullptr;
    std::size_t workspace_bytes = 0;
    std::vector<std::int64_t> ids;  // of the arrays with addresses
};

class Graph {
  public:
    /// An array in device memory, bf16 at a multiple of 16 bytes; its address is given with each execution,
    /// in the order of these calls.
    Array outside(cudnnDataType_t, const Extent&, const Extent& strides);
    /// One f32 in host memory, given likewise.
    Array scalar();
    Array inside(cudnnDataType_t, const Extent&);
    Array inside(cudnnDataType_t, const Extent&, const Extent& strides);

    /// c = a b, for each of the first two dimensions; b may have fewer heads (dimension 1) than a.
    void matmul(Array a, Array b, Array c);
    /// y = mode(x, b): one number after the other, `b` expanded where its extent is 1.
    void pointwise(cudnnPointwiseMode_t mode, Array x, Array b, Array y);
    void pointwise(cudnnPointwiseMode_t mode, Array x, Array y);
    /// y = where ? x : b.
    void select(Array x, Array b, Array where, Array y);
    /// y[...] = the index in dimension `axis`.
    void index(Array x, std::int64_t axis, Array y);
    /// Over the dimensions in which y has extent 1, or in groups of heads.
    void reduce(cudnnReduceTensorOp_t, Array x, Array y);
    /// The same numbers under other strides.
    void reshape(Array x, Array y);

    /// The first plan in cuDNN's order of preference that gives the same bits every time and keeps within the
    /// limit; never timed. Throws Refusal if there is none.
    Plan plan(cudnnBackendDescriptor_t device, std::size_t most_workspace_bytes) const;

  private:
    Array array(cudnnDataType_t, const Extent&, const Extent& strides, bool is_virtual, bool by_value);
    void operation(cudnnBackendDescriptorType_t,
                   std::initializer_list<std::pair<cudnnBackendAttributeName_t, cudnnBackendDescriptor_t>>);
    cudnnBackendDescriptor_t pointwise_mode(cudnnPointwiseMode_t, cudnnDataType_t, std::int64_t axis = -1);

    std::vector<cudnnBackendDescriptor_t> operations_;
    std::vector<std::int64_t> ids_;
    std::int64_t next_id_ = 1;
};

/// `addresses`: of the arrays, in the order in which the graph got them; scalars are read before this
/// returns.
void execute(cudnnHandle_t, const Plan&, std::span<void* const> addresses, void* workspace);

/// A device that plans are made for: of this machine by its number, or any, as cuDNN describes it in JSON.
cudnnBackendDescriptor_t current_device(int number);
cudnnBackendDescriptor_t described_device(const std::string& json);

}  // namespace switchyard::cuda::cudnn

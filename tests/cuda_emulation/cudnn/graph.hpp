// Descriptors of emulated cuDNN, and the graphs that they form. A library of its own (libcudnn.so.9), which
// programs load as they load the real one.
#pragma once

#include <cudnn_graph.h>

#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace emulation::cudnn {

struct Attribute {
    cudnnBackendAttributeType_t type;
    std::int64_t count;
    std::vector<unsigned char> bytes;
};

struct Descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<cudnnBackendAttributeName_t, Attribute> attributes{};
    bool finalized = false;

    bool has(cudnnBackendAttributeName_t name) const { return attributes.count(name) == 1; }
    /// The i-th value; the attribute is there.
    template <class T>
    T get(cudnnBackendAttributeName_t name, std::int64_t i = 0) const {
        T value;
        std::memcpy(&value, attributes.at(name).bytes.data() + static_cast<std::size_t>(i) * sizeof value,
                    sizeof value);
        return value;
    }
    const Descriptor& part(cudnnBackendAttributeName_t name, std::int64_t i = 0) const {
        return *get<const Descriptor*>(name, i);
    }
};

/// True if the environment asks for this misbehaviour on this rank: CUDA_EMULATION_CUDNN=WORD[:RANK].
bool misbehaves(const std::string& word);

/// Bytes of the largest array of bf16 within the graph: what a kernel that stores it needs.
std::size_t workspace_bytes(const Descriptor& graph);
/// The arrays with addresses, by id.
using Addresses = std::map<std::int64_t, void*>;
/// One number in host memory for each scalar, by id.
using Scalars = std::map<std::int64_t, float>;
/// Reads the scalars of a graph; false if an array has no address, or one that is not aligned as it says.
bool read_scalars(const Descriptor& graph, const Addresses&, Scalars&);
/// Computes all operations in order; on a stream.
void compute(const Descriptor& graph, const Addresses&, const Scalars&);

}  // namespace emulation::cudnn

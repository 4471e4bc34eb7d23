// cuDNN's functions. A descriptor takes the attributes of its kind, of the right type, until it is finalized,
// and is used only then; everything else is refused, as the library does.
#include <cstdlib>

#include "fibers.hpp"
#include "graph.hpp"

struct EmulatedCudnn {
    cudaStream_t stream = nullptr;
};

namespace emulation::cudnn {
namespace {

/// Which attribute belongs to which kind, with which type and how many values (0: any number).
struct Rule {
    cudnnBackendAttributeName_t name;
    cudnnBackendDescriptorType_t owner;
    cudnnBackendAttributeType_t type;
    std::int64_t count = 1;
    bool optional = false;
};
constexpr bool optional = true;
constexpr auto part = CUDNN_TYPE_BACKEND_DESCRIPTOR;
constexpr Rule rules[] = {
    {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE},
    {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4},
    {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4},
    {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64},
    {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64},
    {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_BOOLEAN, 1, optional},
    {CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_BOOLEAN, 1, optional},
    {CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE},
    {CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, part},
    {CUDNN_ATTR_POINTWISE_MODE, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_POINTWISE_MODE},
    {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE},
    {CUDNN_ATTR_POINTWISE_AXIS, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_INT64, 1, optional},
    {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, part, 1, optional},
    {CUDNN_ATTR_OPERATION_POINTWISE_TDESC, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, part, 1, optional},
    {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, part},
    {CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE},
    {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE},
    {CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, part},
    {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, part, 0},
    {CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_TYPE_INT32, 1, optional},
    {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_TYPE_CHAR, 0,
     optional},
    {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, part},
    {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_TYPE_HEUR_MODE},
    {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, part},
    {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, part},
    {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, part},
    {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_INT64, 0},
    {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR, 0},
    {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR},
};

std::size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
        case CUDNN_TYPE_CHAR:
        case CUDNN_TYPE_BOOLEAN:
            return 1;
        case CUDNN_TYPE_INT64:
        case CUDNN_TYPE_VOID_PTR:
        case CUDNN_TYPE_BACKEND_DESCRIPTOR:
            return 8;
        default:
            return 4;
    }
}

/// What the heuristic found is kept with its configuration under the name that a plan gives it.
void keep(Descriptor& to, cudnnBackendAttributeName_t name, const Descriptor* value) {
    Attribute attribute{part, 1, std::vector<unsigned char>(sizeof value)};
    std::memcpy(attribute.bytes.data(), &value, sizeof value);
    to.attributes[name] = attribute;
    to.finalized = true;
}

const Descriptor& graph_of(const Descriptor& plan) {
    return plan.part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG).part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
}

/// Into descriptors of the caller.
cudnnStatus_t get_parts(const Descriptor& d, cudnnBackendAttributeName_t name, std::int64_t most,
                        std::int64_t* count, void* elements) {
    auto* const* const parts = static_cast<Descriptor**>(elements);
    if (d.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        *count = misbehaves("no_kernel") ? 0 : 1;
        if (*count > most || (*count == 1 && parts[0]->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
            return CUDNN_STATUS_BAD_PARAM;
        if (*count == 1)
            keep(*parts[0], CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                 &d.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
        return CUDNN_STATUS_SUCCESS;
    }
    if (d.type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || name != CUDNN_ATTR_ENGINECFG_ENGINE || most != 1 ||
        parts[0]->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
        return CUDNN_STATUS_BAD_PARAM;
    keep(*parts[0], CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &d.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
    *count = 1;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace

bool misbehaves(const std::string& word) {
    const char* const given = std::getenv("CUDA_EMULATION_CUDNN");
    if (!given) return false;
    const std::string text = given;
    const std::size_t colon = text.find(':');
    if (text.substr(0, colon) != word) return false;
    const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return colon == text.npos || (rank && text.substr(colon + 1) == rank);
}

}  // namespace emulation::cudnn

using namespace emulation::cudnn;  // NOLINT

std::size_t cudnnGetVersion() {
    return misbehaves("old") ? 90900 : 91900;
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_NOT_INITIALIZED ? "CUDNN_STATUS_NOT_INITIALIZED"
           : status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == CUDNN_STATUS_SUCCESS       ? "CUDNN_STATUS_SUCCESS"
           : status < CUDNN_STATUS_NOT_SUPPORTED  ? "CUDNN_STATUS_BAD_PARAM"
                                                  : "CUDNN_STATUS_EXECUTION_FAILED";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* created) {
    if (misbehaves("no_start")) return CUDNN_STATUS_NOT_INITIALIZED;
    *created = new EmulatedCudnn;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    if (!handle || !stream) return CUDNN_STATUS_BAD_PARAM;
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* created) {
    *created = new Descriptor{type};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    delete static_cast<Descriptor*>(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    auto& d = *static_cast<Descriptor*>(descriptor);
    for (const Rule& rule : rules)
        if (rule.owner == d.type && !rule.optional && !d.has(rule.name)) return CUDNN_STATUS_BAD_PARAM;
    if (d.type == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR && d.attributes.size() != 1)
        return CUDNN_STATUS_BAD_PARAM;
    if (d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && misbehaves("no_plan"))
        return CUDNN_STATUS_NOT_SUPPORTED;
    d.finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count,
                                       const void* elements) {
    auto& d = *static_cast<Descriptor*>(descriptor);
    if (d.finalized) return CUDNN_STATUS_BAD_PARAM;
    for (const Rule& rule : rules) {
        if (rule.owner != d.type || rule.name != name) continue;
        if (rule.type != type || count < 1 || (rule.count > 0 && rule.count != count))
            return CUDNN_STATUS_BAD_PARAM;
        if (type == part)
            for (std::int64_t i = 0; i < count; ++i)
                if (!static_cast<Descriptor* const*>(elements)[i]->finalized)
                    return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
        const auto* const bytes = static_cast<const unsigned char*>(elements);
        d.attributes[name] = {type, count, {bytes, bytes + static_cast<std::size_t>(count) * size_of(type)}};
        return CUDNN_STATUS_SUCCESS;
    }
    return CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t most,
                                       std::int64_t* count, void* elements) {
    const auto& d = *static_cast<const Descriptor*>(descriptor);
    if (!d.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    if (type == part) return get_parts(d, name, most, count, elements);
    if (d.type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
        type == CUDNN_TYPE_NUMERICAL_NOTE && most >= 2) {
        auto* const notes = static_cast<cudnnBackendNumericalNote_t*>(elements);
        notes[0] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE, notes[1] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        *count = misbehaves("no_order") ? 2 : 1;
        return CUDNN_STATUS_SUCCESS;
    }
    if (d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR &&
        name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        *static_cast<std::int64_t*>(elements) = static_cast<std::int64_t>(workspace_bytes(graph_of(d)));
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    return CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
    const auto& p = *static_cast<const Descriptor*>(plan);
    const auto& given = *static_cast<const Descriptor*>(pack);
    if (!handle || !p.finalized || !given.finalized || p.type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        return CUDNN_STATUS_BAD_PARAM;
    if (misbehaves("no_execution")) return CUDNN_STATUS_EXECUTION_FAILED;
    const std::int64_t count = given.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count;
    if (given.attributes.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count != count)
        return CUDNN_STATUS_BAD_PARAM;
    Addresses addresses;
    for (std::int64_t i = 0; i < count; ++i)
        addresses[given.get<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i)] =
            given.get<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    const Descriptor* const graph = &graph_of(p);
    Scalars scalars;
    if (!read_scalars(*graph, addresses, scalars)) return CUDNN_STATUS_BAD_PARAM;
    void* const workspace = given.get<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    const std::size_t bytes = workspace_bytes(*graph);
    emulation::enqueue_work(handle->stream, [=] {
        std::memset(workspace, 0xFF, bytes);  // whatever was there is gone
        compute(*graph, addresses, scalars);
    });
    return CUDNN_STATUS_SUCCESS;
}

// Descriptors are created, given attributes, finalized, and then read only.
#include "cuda/kernels/attention/cudnn/graph.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/units.hpp"

namespace switchyard::cuda::cudnn {
namespace {

constexpr cudnnDataType_t f32 = CUDNN_DATA_FLOAT;

cudnnBackendDescriptor_t create(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t created = nullptr;
    check(library().create_descriptor(type, &created), "a descriptor is created");
    return created;
}

void set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
         cudnnBackendAttributeType_t type, const void* values, std::int64_t count = 1) {
    check(library().set_attribute(descriptor, name, type, count, values),
          fmt::format("attribute {} is set", static_cast<int>(name)));
}

void finalize(cudnnBackendDescriptor_t descriptor, const char* when) {
    check(library().finalize(descriptor), when);
}

Extent packed(const Extent& e) {
    return {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1};
}

template <class T>
T get(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
      T value) {
    std::int64_t count = 0;
    check(library().get_attribute(descriptor, name, type, 1, &count, &value),
          fmt::format("attribute {} is read", static_cast<int>(name)));
    return value;
}

/// False for an engine that may add in another order each time.
bool is_deterministic(cudnnBackendDescriptor_t configuration) {
    const cudnnBackendDescriptor_t engine =
        get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            create(CUDNN_BACKEND_ENGINE_DESCRIPTOR));
    std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
    std::int64_t count = 0;
    check(library().get_attribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                  CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()),
          "an engine is asked for its notes");
    return std::find(notes.begin(), notes.begin() + count, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) ==
           notes.begin() + count;
}

/// What the heuristic offers, best first.
std::vector<cudnnBackendDescriptor_t> configurations(cudnnBackendDescriptor_t graph,
                                                     cudnnBackendDescriptor_t device) {
    constexpr std::int64_t most = 32;
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    const cudnnBackendDescriptor_t heuristic = create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, &graph);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, &device);
    finalize(heuristic, "it is asked for kernels");
    std::vector<cudnnBackendDescriptor_t> found(most);
    for (cudnnBackendDescriptor_t& each : found) each = create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    std::int64_t count = 0;
    check(library().get_attribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                  most, &count, found.data()),
          "it is asked for kernels");
    found.resize(static_cast<std::size_t>(std::min(count, most)));
    return found;
}

}  // namespace

void check(cudnnStatus_t status, const std::string& when) {
    if (status != CUDNN_STATUS_SUCCESS)
        throw Refusal(fmt::format("it reports {} when {}", library().error_string(status), when));
}

cudnnBackendDescriptor_t current_device(int number) {
    const cudnnBackendDescriptor_t device = create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    const std::int32_t value = number;
    set(device, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, &value);
    finalize(device, "it is asked about the device");
    return device;
}

cudnnBackendDescriptor_t described_device(const std::string& json) {
    const cudnnBackendDescriptor_t device = create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, json.c_str(),
        static_cast<std::int64_t>(json.size()));
    finalize(device, "a device is described");
    return device;
}

Array Graph::array(cudnnDataType_t type, const Extent& extent, const Extent& strides, bool is_virtual,
                   bool by_value) {
    const std::int64_t alignment = type == f32 ? 4 : 16, id = next_id_++;
    const cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, extent.data(), 4);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides.data(), 4);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &alignment);
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &id);
    if (is_virtual) set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, &is_virtual);
    if (by_value) set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, &by_value);
    finalize(d, "an array is described");
    if (!is_virtual) ids_.push_back(id);
    return {d};
}

Array Graph::outside(cudnnDataType_t type, const Extent& extent, const Extent& strides) {
    return array(type, extent, strides, false, false);
}
Array Graph::scalar() {
    return array(f32, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
}
Array Graph::inside(cudnnDataType_t type, const Extent& extent) {
    return array(type, extent, packed(extent), true, false);
}
Array Graph::inside(cudnnDataType_t type, const Extent& extent, const Extent& strides) {
    return array(type, extent, strides, true, false);
}

void Graph::operation(
    cudnnBackendDescriptorType_t type,
    std::initializer_list<std::pair<cudnnBackendAttributeName_t, cudnnBackendDescriptor_t>> parts) {
    const cudnnBackendDescriptor_t made = create(type);
    for (const auto& [name, part] : parts) set(made, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &part);
    finalize(made, "an operation is described");
    operations_.push_back(made);
}

void Graph::matmul(Array a, Array b, Array c) {
    const cudnnBackendDescriptor_t product = create(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set(product, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &f32);
    finalize(product, "a product is described");
    operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_MATMUL_DESC, product},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.descriptor}});
}

cudnnBackendDescriptor_t Graph::pointwise_mode(cudnnPointwiseMode_t mode, cudnnDataType_t precision,
                                               std::int64_t axis) {
    const cudnnBackendDescriptor_t made = create(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(made, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, &mode);
    set(made, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, &precision);
    if (axis >= 0) set(made, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, &axis);
    finalize(made, "an operation is described");
    return made;
}

void Graph::pointwise(cudnnPointwiseMode_t mode, Array x, Array b, Array y) {
    operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                pointwise_mode(mode, mode == CUDNN_POINTWISE_CMP_GE ? CUDNN_DATA_INT32 : f32)},
               {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
               {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b.descriptor},
               {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor}});
}

void Graph::pointwise(cudnnPointwiseMode_t mode, Array x, Array y) {
    operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_mode(mode, f32)},
               {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
               {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor}});
}

void Graph::select(Array x, Array b, Array where, Array y) {
    operation(
        CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
        {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_mode(CUDNN_POINTWISE_BINARY_SELECT, f32)},
         {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
         {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b.descriptor},
         {CUDNN_ATTR_OPERATION_POINTWISE_TDESC, where.descriptor},
         {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor}});
}

void Graph::index(Array x, std::int64_t axis, Array y) {
    operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                pointwise_mode(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, axis)},
               {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
               {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor}});
}

void Graph::reduce(cudnnReduceTensorOp_t kind, Array x, Array y) {
    const cudnnBackendDescriptor_t made = create(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(made, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, &kind);
    set(made, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &f32);
    finalize(made, "a reduction is described");
    operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_REDUCTION_DESC, made},
               {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor},
               {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.descriptor}});
}

void Graph::reshape(Array x, Array y) {
    operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor},
               {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.descriptor}});
}

Plan Graph::plan(cudnnBackendDescriptor_t device, std::size_t most_workspace_bytes) const {
    const cudnnBackendDescriptor_t graph = create(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations_.data(),
        static_cast<std::int64_t>(operations_.size()));
    finalize(graph, "attention is described as a graph");
    std::string reason = "it has no kernel for attentions of this shape on this GPU";
    for (const cudnnBackendDescriptor_t configuration : configurations(graph, device)) {
        if (!is_deterministic(configuration)) {
            reason = "its kernels for attentions of this shape do not give the same bits every time";
            continue;
        }
        const cudnnBackendDescriptor_t plan = create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, &configuration);
        set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, &device);
        if (library().finalize(plan) != CUDNN_STATUS_SUCCESS)
            continue;  // offered, and not possible after all
        const auto bytes = static_cast<std::size_t>(
            get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, std::int64_t{0}));
        if (bytes <= most_workspace_bytes) return {plan, bytes, ids_};
        reason = fmt::format("its kernel needs {} beside its arguments, and {} are allowed",
                             bytes_text(bytes), bytes_text(most_workspace_bytes));
    }
    throw Refusal(reason);
}

void execute(cudnnHandle_t handle, const Plan& plan, std::span<void* const> addresses, void* workspace) {
    const auto count = static_cast<std::int64_t>(plan.ids.size());
    const cudnnBackendDescriptor_t pack = create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, plan.ids.data(), count);
    set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, addresses.data(), count);
    set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace);
    finalize(pack, "addresses are given");
    check(library().execute(handle, plan.descriptor, pack), "attention is started");
    library().destroy_descriptor(pack);
}

}  // namespace switchyard::cuda::cudnn

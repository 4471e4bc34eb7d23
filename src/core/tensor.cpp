// Shapes and views; no arithmetic on elements.
#include "core/tensor.hpp"

#include "core/error.hpp"

namespace switchyard {

std::size_t size_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
        case DType::i64:
            return 8;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::bf16:
        case DType::i16:
            return 2;
        case DType::u8:
            return 1;
    }
    throw InternalError("unknown dtype");
}

const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
            return "f64";
        case DType::f32:
            return "f32";
        case DType::bf16:
            return "bf16";
        case DType::i64:
            return "i64";
        case DType::i32:
            return "i32";
        case DType::i16:
            return "i16";
        case DType::u8:
            return "u8";
    }
    throw InternalError("unknown dtype");
}

DType dtype_from_name(const std::string& name) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f64})
        if (name == name_of(dtype)) return dtype;
    fail("unknown number format '{}' (the back ends compute in f32, bf16 or f64); choose one of these", name);
}

Shape::Shape(std::initializer_list<std::int64_t> extents) {
    internal_check(extents.size() <= extents_.size(), "shape with {} dimensions", extents.size());
    for (std::int64_t extent : extents) {
        internal_check(extent >= 0, "negative extent {}", extent);
        extents_[rank_++] = extent;
    }
}

std::int64_t Shape::size() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= extents_[i];
    return product;
}

std::string Shape::text() const {
    std::string text;
    for (int i = 0; i < rank_; ++i) {
        if (i > 0) text += 'x';
        text += std::to_string(extents_[i]);
    }
    return text;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t count) const {
    internal_check(shape_.rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= shape_[0],
                   "rows [{}, {}) of a tensor {}", begin, begin + count, shape_);
    const std::int64_t row = shape_[0] == 0 ? 0 : size() / shape_[0];
    Shape shape;
    switch (shape_.rank()) {
        case 1:
            shape = {count};
            break;
        case 2:
            shape = {count, shape_[1]};
            break;
        case 3:
            shape = {count, shape_[1], shape_[2]};
            break;
        default:
            shape = {count, shape_[1], shape_[2], shape_[3]};
    }
    char* start = data_ ? static_cast<char*>(data_) + begin * row * static_cast<std::int64_t>(size_of(dtype_))
                        : nullptr;
    return {start, dtype_, shape};
}

Tensor Tensor::reshape(Shape shape) const {
    internal_check(shape.size() == size(), "reshape of {} to {}", shape_, shape);
    return {data_, dtype_, shape};
}

Tensor Tensor::view(DType dtype, Shape shape) const {
    const Tensor result{data_, dtype, shape};
    internal_check(result.bytes() <= bytes(), "view of {} bytes in {} bytes", result.bytes(), bytes());
    return result;
}

}  // namespace switchyard

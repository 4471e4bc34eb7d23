// Tensor: a non-owning, contiguous view of back-end memory. Only kernels, collectives and I/O access its
// elements.
//
// Dimensions, everywhere: B micro-batch (sequences), T sequence length, N = B T tokens, C hidden size, H
// heads, K key-value heads, D head size, F feed-forward size, V vocabulary size, L layers, r low rank, P tp
// size.
#pragma once

#include <fmt/core.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace switchyard {

enum class DType : std::uint8_t { f32, bf16, f64, i16, i32, i64, u8 };

std::size_t size_of(DType);
const char* name_of(DType);
/// The type called `f32`, `bf16` or `f64`; throws UserError for other names.
DType dtype_from_name(const std::string&);

/// Type of accumulations, gradients, reductions, moments and masters: f32, or f64 if the compute type is f64.
constexpr DType accumulate_type(DType compute) {
    return compute == DType::f64 ? DType::f64 : DType::f32;
}

/// Up to four extents, row-major.
class Shape {
  public:
    Shape() = default;
    Shape(std::initializer_list<std::int64_t> extents);

    int rank() const { return rank_; }
    std::int64_t operator[](int i) const { return extents_[i]; }
    std::int64_t size() const;
    bool operator==(const Shape&) const = default;
    std::string text() const;  // "512x1376"

  private:
    std::array<std::int64_t, 4> extents_{};
    int rank_ = 0;
};

class Tensor {
  public:
    Tensor() = default;
    Tensor(void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape) {}

    DType dtype() const { return dtype_; }
    const Shape& shape() const { return shape_; }
    std::int64_t dim(int i) const { return shape_[i]; }
    std::int64_t size() const { return shape_.size(); }
    std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype_); }
    bool empty() const { return shape_.rank() == 0 || size() == 0; }

    /// Slice [begin, begin + count) of the leading dimension, in the same memory.
    Tensor rows(std::int64_t begin, std::int64_t count) const;
    /// The same elements with another shape of the same size.
    Tensor reshape(Shape) const;
    /// The leading bytes as another type and shape, for shared scratch memory. They must fit.
    Tensor view(DType, Shape) const;

    /// Pointer in back-end memory, for kernels, collectives and I/O only.
    void* raw() const { return data_; }
    template <class T>
    T* data() const {
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    DType dtype_ = DType::f32;
    Shape shape_;
};

}  // namespace switchyard

/// Formats like text(), but only when the message is shown.
template <>
struct fmt::formatter<switchyard::Shape> : fmt::formatter<fmt::string_view> {
    auto format(const switchyard::Shape& shape, format_context& context) const {
        return fmt::formatter<fmt::string_view>::format(shape.text(), context);
    }
};

// Host tensors that own their memory, filled from Philox, and their comparison by the rule k * sqrt(n) * eps
// * max|ref|. Memory is exactly as long as the tensor, so that a sanitizer sees every access beyond it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/tensor.hpp"

namespace switchyard::test {

using Values = std::vector<double>;

/// Spacing of numbers at 1.
inline double eps_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
            return std::numeric_limits<double>::epsilon();
        case DType::f32:
            return std::numeric_limits<float>::epsilon();
        default:
            return 0x1p-7;
    }
}

class HostTensor {
  public:
    HostTensor() = default;
    HostTensor(DType dtype, Shape shape)
        : memory_(static_cast<std::byte*>(::operator new(bytes_of(dtype, shape), alignment))),
          tensor_(memory_.get(), dtype, shape) {
        std::fill_n(memory_.get(), tensor_.bytes(), std::byte{0});
    }
    HostTensor(DType dtype, Shape shape, const Values& values) : HostTensor(dtype, shape) { set(values); }

    /// Standard normal numbers times `scale`, keyed by `name`.
    static HostTensor normal(DType dtype, Shape shape, std::string_view name, double scale = 1) {
        HostTensor result(dtype, shape);
        const std::uint64_t key = stream_key(1, name);
        for (std::int64_t i = 0; i < shape.size(); ++i) result.set(i, scale * switchyard::normal(key, i));
        return result;
    }
    static HostTensor integers(Shape shape, const std::vector<std::int32_t>& values) {
        HostTensor result(DType::i32, shape);
        std::copy(values.begin(), values.end(), result.tensor_.data<std::int32_t>());
        return result;
    }

    operator Tensor() const { return tensor_; }
    std::int64_t size() const { return tensor_.size(); }
    DType dtype() const { return tensor_.dtype(); }

    double at(std::int64_t i) const {
        switch (tensor_.dtype()) {
            case DType::f64:
                return tensor_.data<double>()[i];
            case DType::f32:
                return tensor_.data<float>()[i];
            case DType::bf16:
                return to_f32(tensor_.data<bf16>()[i]);
            case DType::i32:
                return tensor_.data<std::int32_t>()[i];
            case DType::i64:
                return static_cast<double>(tensor_.data<std::int64_t>()[i]);
            default:
                return tensor_.data<std::int16_t>()[i];
        }
    }
    void set(std::int64_t i, double value) {
        switch (tensor_.dtype()) {
            case DType::f64:
                tensor_.data<double>()[i] = value;
                break;
            case DType::f32:
                tensor_.data<float>()[i] = static_cast<float>(value);
                break;
            case DType::bf16:
                tensor_.data<bf16>()[i] = to_bf16(static_cast<float>(value));
                break;
            case DType::i32:
                tensor_.data<std::int32_t>()[i] = static_cast<std::int32_t>(value);
                break;
            case DType::i64:
                tensor_.data<std::int64_t>()[i] = static_cast<std::int64_t>(value);
                break;
            default:
                tensor_.data<std::int16_t>()[i] = static_cast<std::int16_t>(value);
        }
    }
    Values values() const {
        Values values(static_cast<std::size_t>(size()));
        for (std::int64_t i = 0; i < size(); ++i) values[static_cast<std::size_t>(i)] = at(i);
        return values;
    }
    void set(const Values& values) {
        for (std::size_t i = 0; i < values.size(); ++i) set(static_cast<std::int64_t>(i), values[i]);
    }
    HostTensor clone() const {
        HostTensor copy(dtype(), tensor_.shape());
        std::copy_n(memory_.get(), tensor_.bytes(), copy.memory_.get());
        return copy;
    }

  private:
    static constexpr std::align_val_t alignment{64};
    static std::size_t bytes_of(DType dtype, Shape shape) {
        return static_cast<std::size_t>(shape.size()) * size_of(dtype);
    }
    struct Free {
        void operator()(std::byte* p) const { ::operator delete(p, alignment); }
    };
    std::unique_ptr<std::byte, Free> memory_;
    Tensor tensor_;
};

/// Error of a computation in `compute` stored as `stored`: the sum of `n` terms rounded in the one, the
/// result in the other.
inline double tolerance(DType stored, DType compute, double k, std::int64_t n) {
    return k *
           (std::sqrt(static_cast<double>(n)) * eps_of(compute) + (stored == compute ? 0 : eps_of(stored)));
}

/// |actual - reference| <= k * sqrt(n) * eps * max|reference| for each element, n terms being summed in
/// accumulate_type; a result stored in bf16 may be off by k of its own eps as well. Names the first element
/// that is not.
inline ::testing::AssertionResult close(const HostTensor& actual, const Values& reference, double k,
                                        std::int64_t n = 1) {
    if (actual.size() != static_cast<std::int64_t>(reference.size()))
        return ::testing::AssertionFailure() << actual.size() << " elements instead of " << reference.size();
    double largest = 0;
    for (double value : reference) largest = std::max(largest, std::fabs(value));
    const double limit = largest * tolerance(actual.dtype(), accumulate_type(actual.dtype()), k, n);
    for (std::int64_t i = 0; i < actual.size(); ++i) {
        const double expected = reference[static_cast<std::size_t>(i)],
                     error = std::fabs(actual.at(i) - expected);
        if (!(error <= limit))
            return ::testing::AssertionFailure()
                   << "element " << i << " of " << static_cast<Tensor>(actual).shape().text() << " ("
                   << name_of(actual.dtype()) << ") is " << ::testing::PrintToString(actual.at(i))
                   << ", expected " << ::testing::PrintToString(expected) << ", error " << error << " > "
                   << limit;
    }
    return ::testing::AssertionSuccess();
}

/// Same bits, element by element.
inline ::testing::AssertionResult same_bits(Tensor a, Tensor b) {
    if (a.dtype() != b.dtype() || a.size() != b.size())
        return ::testing::AssertionFailure() << "other type or size";
    const std::size_t size = size_of(a.dtype());
    for (std::int64_t i = 0; i < a.size(); ++i) {
        const auto *x = a.data<std::byte>() + i * static_cast<std::int64_t>(size),
                   *y = b.data<std::byte>() + (x - a.data<std::byte>());
        if (!std::equal(x, x + size, y))
            return ::testing::AssertionFailure() << "element " << i << " differs";
    }
    return ::testing::AssertionSuccess();
}

/// For parametrised tests over the compute types.
inline const DType compute_types[] = {DType::f32, DType::bf16, DType::f64};

}  // namespace switchyard::test

// Tensors with values on the host and a mirror in back-end memory, filled from Philox, and their comparison
// by the rule k * sqrt(n) * eps * max|ref|. Memory is exactly as long as the tensor, so that a sanitizer sees
// every access beyond it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "core/backend_memory.hpp"
#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "core/tensor.hpp"
#include "kernels/transfer.hpp"

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

/// Values on the host with a mirror in back-end memory. As a Tensor it is the mirror, which is made and
/// brought up to date then; reads fetch it once afterwards. So convert to a Tensor where a kernel is called:
/// changes through a Tensor from before go unnoticed.
class HostTensor {
  public:
    HostTensor() = default;
    HostTensor(DType dtype, Shape shape)
        : dtype_(dtype), shape_(shape), values_(static_cast<std::size_t>(shape.size()) * size_of(dtype)) {}
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
        std::copy(values.begin(), values.end(), result.elements<std::int32_t>());
        return result;
    }

    operator Tensor() const {
        if (!mirror_ && shape_.rank() > 0) {
            mirror_.reset(backend::allocate(values_.size()));
            if (!mirror_) throw std::bad_alloc();
        }
        const Tensor tensor(mirror_.get(), dtype_, shape_);
        if (host_changed_ && mirror_) kernels::upload(values_.data(), tensor);
        host_changed_ = false;
        mirror_changed_ = true;  // by whoever gets the tensor
        return tensor;
    }
    std::int64_t size() const { return shape_.size(); }
    DType dtype() const { return dtype_; }
    const Shape& shape() const { return shape_; }
    /// The values in host memory, to read or to change.
    const std::byte* bytes() const { return elements<std::byte>(); }
    std::byte* bytes() {
        host_changed_ = true;
        return const_cast<std::byte*>(std::as_const(*this).bytes());
    }
    std::size_t num_bytes() const { return values_.size(); }

    /// An element's bits, zero-extended; set: the lowest of `bits`.
    std::uint64_t bits(std::int64_t i) const {
        std::uint64_t bits = 0;
        std::memcpy(&bits, bytes() + i * static_cast<std::int64_t>(size_of(dtype_)), size_of(dtype_));
        return bits;
    }
    void set_bits(std::int64_t i, std::uint64_t bits) {
        std::memcpy(bytes() + i * static_cast<std::int64_t>(size_of(dtype_)), &bits, size_of(dtype_));
    }
    double at(std::int64_t i) const {
        switch (dtype_) {
            case DType::f64:
                return elements<double>()[i];
            case DType::f32:
                return elements<float>()[i];
            case DType::bf16:
                return to_f32(elements<bf16>()[i]);
            case DType::i32:
                return elements<std::int32_t>()[i];
            case DType::i64:
                return static_cast<double>(elements<std::int64_t>()[i]);
            case DType::u8:
                return elements<std::uint8_t>()[i];
            default:
                return elements<std::int16_t>()[i];
        }
    }
    void set(std::int64_t i, double value) {
        switch (dtype_) {
            case DType::f64:
                elements<double>()[i] = value;
                break;
            case DType::f32:
                elements<float>()[i] = static_cast<float>(value);
                break;
            case DType::bf16:
                elements<bf16>()[i] = to_bf16(static_cast<float>(value));
                break;
            case DType::i32:
                elements<std::int32_t>()[i] = static_cast<std::int32_t>(value);
                break;
            case DType::i64:
                elements<std::int64_t>()[i] = static_cast<std::int64_t>(value);
                break;
            case DType::u8:
                elements<std::uint8_t>()[i] = static_cast<std::uint8_t>(static_cast<int>(value));
                break;
            default:
                elements<std::int16_t>()[i] = static_cast<std::int16_t>(value);
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
        HostTensor copy(dtype_, shape_);
        std::copy_n(bytes(), num_bytes(), copy.bytes());
        return copy;
    }

  private:
    struct Release {
        void operator()(std::byte* p) const { backend::release(p); }
    };
    template <class T>
    const T* elements() const {
        if (mirror_changed_ && mirror_)
            kernels::download(Tensor(mirror_.get(), dtype_, shape_), values_.data());
        mirror_changed_ = false;
        return reinterpret_cast<const T*>(values_.data());
    }
    template <class T>
    T* elements() {
        return reinterpret_cast<T*>(bytes());
    }

    DType dtype_ = DType::f32;
    Shape shape_;
    mutable std::vector<std::byte> values_;
    mutable std::unique_ptr<std::byte, Release> mirror_;
    mutable bool host_changed_ = true, mirror_changed_ = false;
};

/// The elements of any tensor in back-end memory, and one of them replaced.
inline HostTensor host_copy(Tensor tensor) {
    HostTensor copy(tensor.dtype(), tensor.shape());
    kernels::download(tensor, copy.bytes());
    return copy;
}
inline Values values_of(Tensor tensor) {
    return host_copy(tensor).values();
}
inline void set_value(Tensor tensor, std::int64_t i, double value) {
    HostTensor copy = host_copy(tensor);
    copy.set(i, value);
    kernels::upload(copy.bytes(), tensor);
}

/// Scratch of a kernel: NaN, so that what it does not write itself shows.
inline HostTensor scratch_of(std::size_t bytes) {
    HostTensor scratch(DType::i64, {static_cast<std::int64_t>((bytes + 7) / 8)});
    std::fill_n(scratch.bytes(), scratch.num_bytes(), std::byte{0xFF});
    return scratch;
}

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

/// Same bits, element by element; `host` has as many elements as `a`.
inline ::testing::AssertionResult same_bits(Tensor a, const void* host) {
    const std::size_t size = size_of(a.dtype());
    std::vector<std::byte> here(a.bytes());
    kernels::download(a, here.data());
    for (std::size_t at = 0; at < here.size(); at += size)
        if (std::memcmp(here.data() + at, static_cast<const std::byte*>(host) + at, size) != 0)
            return ::testing::AssertionFailure() << "element " << at / size << " differs";
    return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult same_bits(Tensor a, Tensor b) {
    if (a.dtype() != b.dtype() || a.size() != b.size())
        return ::testing::AssertionFailure() << "other type or size";
    std::vector<std::byte> there(b.bytes());
    kernels::download(b, there.data());
    return same_bits(a, there.data());
}

/// For parametrised tests over the compute types.
inline const DType compute_types[] = {DType::f32, DType::bf16, DType::f64};

/// What optimizer kernels multiply gradients by, and 1 if all are finite, else 0.
inline HostTensor clip_of(double coefficient, double finite) {
    return HostTensor(DType::f64, {2}, {coefficient, finite});
}

}  // namespace switchyard::test

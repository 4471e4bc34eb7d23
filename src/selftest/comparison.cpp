// Conversions between the types of tensors and f64 on the host.
#include "selftest/comparison.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/bf16.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/transfer.hpp"

namespace switchyard::selftest {
namespace {

double eps_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
            return std::numeric_limits<double>::epsilon();
        case DType::f32:
            return std::numeric_limits<float>::epsilon();
        default:
            return 0x1p-7;
    }
}

/// Calls work(T{}) with the type of the elements.
template <class Work>
void with_type(DType dtype, const Work& work) {
    switch (dtype) {
        case DType::f64:
            return work(double{});
        case DType::f32:
            return work(float{});
        case DType::bf16:
            return work(bf16{});
        case DType::i32:
            return work(std::int32_t{});
        default:
            internal_check(false, "no values of type {} in the self-test", switchyard::name_of(dtype));
    }
}

double as_double(bf16 x) {
    return to_f32(x);
}
double as_double(auto x) {
    return static_cast<double>(x);
}

template <class T>
T as(double x) {
    if constexpr (std::is_same_v<T, bf16>)
        return to_bf16(static_cast<float>(x));
    else
        return static_cast<T>(x);
}

}  // namespace

double share_of_tolerance(const Comparison& c) {
    constexpr double wrong = std::numeric_limits<double>::infinity();
    if (c.got.size() != c.expected.size()) return wrong;
    double largest = 0, error = 0;
    for (std::size_t i = 0; i < c.got.size(); ++i) {
        const double difference = std::fabs(c.got[i] - c.expected[i]);
        if (!std::isfinite(difference)) return wrong;
        largest = std::max(largest, std::fabs(c.expected[i]));
        error = std::max(error, difference);
    }
    if (error == 0) return 0;
    return c.tolerance * largest > 0 ? error / (c.tolerance * largest) : wrong;
}

double tolerance(DType stored, double k, std::int64_t n) {
    const DType wide = accumulate_type(stored);
    return k * (std::sqrt(static_cast<double>(n)) * eps_of(wide) + (stored == wide ? 0 : eps_of(stored)));
}

double rounded(DType dtype, double value) {
    double result = 0;
    with_type(dtype, [&]<class T>(T) { result = as_double(as<T>(value)); });
    return result;
}

Values values_of(Tensor tensor) {
    std::vector<std::byte> bytes(tensor.bytes());
    kernels::download(tensor, bytes.data());
    Values values(static_cast<std::size_t>(tensor.size()));
    with_type(tensor.dtype(), [&]<class T>(T element) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
            values[i] = as_double(element);
        }
    });
    return values;
}

void set_values(Tensor tensor, const Values& values) {
    internal_check(static_cast<std::int64_t>(values.size()) == tensor.size(), "{} values for a tensor {}",
                   values.size(), tensor.shape());
    with_type(tensor.dtype(), [&]<class T>(T) {
        std::vector<T> elements;
        for (double value : values) elements.push_back(as<T>(value));
        kernels::upload(elements.data(), tensor);
    });
}

Tensor Operands::zeros(DType dtype, Shape shape) {
    Tensor tensor;
    blocks_.push_back(
        allocate_scratch([&](Arena& arena) { tensor = arena.take(MemoryClass::workspace, dtype, shape); }));
    return tensor;
}

Tensor Operands::normal(DType dtype, Shape shape, std::string_view name, double scale) {
    const std::uint64_t key = stream_key(0, name);
    Values values;
    for (std::int64_t i = 0; i < shape.size(); ++i)
        values.push_back(scale * switchyard::normal(key, static_cast<std::uint64_t>(i)));
    const Tensor tensor = zeros(dtype, shape);
    set_values(tensor, values);
    return tensor;
}

Tensor Operands::integers(Shape shape, const std::vector<std::int32_t>& values) {
    const Tensor tensor = zeros(DType::i32, shape);
    kernels::upload(values.data(), tensor);
    return tensor;
}

Tensor Operands::output(DType dtype, Shape shape) {
    const Tensor tensor = zeros(dtype, shape);
    kernels::upload(std::vector<std::byte>(tensor.bytes(), std::byte{0xFF}).data(), tensor);
    return tensor;
}

Tensor Operands::scratch(std::size_t bytes) {
    return zeros(DType::u8, {static_cast<std::int64_t>(std::max<std::size_t>(bytes, 1))});
}

}  // namespace switchyard::selftest

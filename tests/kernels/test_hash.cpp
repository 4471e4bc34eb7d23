// Hashes of bits: their definition for every type and length, many tensors per call, any number of threads,
// and that every bit counts.
#include <omp.h>

#include "kernels/hash.hpp"
#include "kernels/transfer.hpp"
#include "reference/hash.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

namespace switchyard::test {
namespace {

std::vector<std::uint64_t> hashes_of(const std::vector<Tensor>& tensors) {
    const HostTensor hashes(DType::i64, {static_cast<std::int64_t>(tensors.size())});
    kernels::hash_bits(tensors, hashes);
    std::vector<std::uint64_t> result(tensors.size());
    kernels::download(hashes, result.data());
    return result;
}

/// Every byte differs, and there is an odd length at which no thread's share ends.
HostTensor bytes_of(DType dtype, Shape shape) {
    HostTensor tensor(dtype, shape);
    for (std::size_t i = 0; i < tensor.num_bytes(); ++i) tensor.bytes()[i] = static_cast<std::byte>(mix64(i));
    return tensor;
}

TEST(Hash, IsTheSumOfItsDefinition) {
    std::vector<HostTensor> owners;
    for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i16, DType::i32, DType::i64, DType::u8})
        for (Shape shape : {Shape{1}, Shape{7, 3}, Shape{4097}, Shape{watched() ? 3 : 37, 911}})
            owners.push_back(bytes_of(dtype, shape));
    std::vector<Tensor> tensors{Tensor(), Tensor(nullptr, DType::f32, {0, 4})};
    std::vector<std::uint64_t> expected{0, 0};
    for (const HostTensor& owner : owners) {
        tensors.push_back(owner);
        expected.push_back(reference::hash_bits(owner.bytes(), owner.size(), size_of(owner.dtype())));
    }
    const int before = omp_get_max_threads();
    for (int threads : {1, 3}) {
        omp_set_num_threads(threads);
        EXPECT_EQ(hashes_of(tensors), expected) << threads << " threads";
    }
    omp_set_num_threads(before);
}

TEST(Hash, ManyTensorsInOneCallAreEachTheirOwn) {
    const std::int64_t count = watched() ? 40 : 500;
    HostTensor all = bytes_of(DType::i32, {count, 3});
    std::vector<Tensor> tensors;
    for (std::int64_t i = 0; i < count; ++i) tensors.push_back(static_cast<Tensor>(all).rows(count - 1 - i, 1));
    const std::vector<std::uint64_t> hashes = hashes_of(tensors);
    for (std::int64_t i = 0; i < count; ++i)
        ASSERT_EQ(hashes[static_cast<std::size_t>(i)],
                  reference::hash_bits(std::as_const(all).bytes() + (count - 1 - i) * 12, 3, 4))
            << i;
}

TEST(Hash, EveryBitAndEveryPlaceCounts) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i16, DType::u8}) {
        HostTensor tensor = bytes_of(dtype, {watched() ? 1 : 3, 5});
        const std::uint64_t whole = hashes_of({tensor})[0];
        for (std::size_t bit = 0; bit < 8 * tensor.num_bytes(); bit += watched() ? 7 : 1) {
            tensor.bytes()[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
            EXPECT_NE(hashes_of({tensor})[0], whole) << name_of(dtype) << " bit " << bit;
            tensor.bytes()[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        }
        std::swap_ranges(tensor.bytes(), tensor.bytes() + size_of(dtype), tensor.bytes() + size_of(dtype));
        EXPECT_NE(hashes_of({tensor})[0], whole) << "two elements exchanged";
    }
}

}  // namespace
}  // namespace switchyard::test

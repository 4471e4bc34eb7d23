// Copies between host arrays and back-end memory: every type, slices, empty tensors.
#include "kernels/transfer.hpp"
#include "support/tensors.hpp"

namespace switchyard::test {
namespace {

TEST(Transfer, BringsEveryTypeThereAndBack) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i16, DType::i32, DType::i64}) {
        const Shape shape{3, 1, 7};
        std::vector<std::byte> host(21 * size_of(dtype)), back(host.size());
        for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<std::byte>(37 * i + 11);
        const HostTensor tensor(dtype, shape);
        kernels::upload(host.data(), tensor);
        EXPECT_TRUE(same_bits(tensor, host.data())) << name_of(dtype);
        kernels::download(tensor, back.data());
        EXPECT_EQ(back, host) << name_of(dtype);
    }
}

TEST(Transfer, LeavesNeighboursAlone) {
    const HostTensor tensor = HostTensor::normal(DType::f32, {5, 4}, "x");
    const Values before = tensor.values();
    std::vector<float> host(8, 2.5f);
    kernels::upload(host.data(), static_cast<Tensor>(tensor).rows(1, 2));
    for (std::int64_t i = 0; i < tensor.size(); ++i)
        EXPECT_EQ(tensor.at(i), i >= 4 && i < 12 ? 2.5 : before[static_cast<std::size_t>(i)]);
    std::vector<float> back(6, -1);
    kernels::download(static_cast<Tensor>(tensor).rows(4, 1), back.data() + 1);
    EXPECT_EQ(back[0], -1);
    EXPECT_EQ(back[5], -1);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(back[1 + i], before[16 + i]);
}

TEST(Transfer, ManyMebibytesInBothDirections) {
    const std::int64_t size = (19 << 20) / 4 + 3;  // more than a back end may hold on the way at once
    std::vector<std::uint32_t> host(static_cast<std::size_t>(size)), back(host.size());
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<std::uint32_t>(i * 2654435761u);
    const HostTensor tensor(DType::i32, {size});
    const Tensor mirror = tensor;
    for (int round = 0; round < 2; ++round) {
        std::vector<std::uint32_t> given = host;
        kernels::upload(given.data(), mirror);
        std::fill(given.begin(), given.end(), 0);  // is the caller's again
        kernels::download(mirror, back.data());
        EXPECT_TRUE(back == host);
        for (std::uint32_t& x : host) x = ~x;
    }
}

TEST(Transfer, OfNothingTouchesNothing) {
    for (const Tensor& nothing : {Tensor(), Tensor(nullptr, DType::f32, {0, 4})}) {
        EXPECT_NO_THROW(kernels::upload(nullptr, nothing));
        EXPECT_NO_THROW(kernels::download(nothing, nullptr));
    }
}

}  // namespace
}  // namespace switchyard::test

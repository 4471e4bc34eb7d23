// Copies between host arrays and back-end memory: every type, slices, empty tensors.
#include "kernels/rows.hpp"
#include "kernels/transfer.hpp"
#include "support/tensors.hpp"
#include "support/watched.hpp"

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

/// What a copy of rows gives, packed row after row as `dtype`.
std::vector<std::byte> packed(const std::vector<kernels::RowPart>& parts, DType dtype) {
    std::int64_t rows = 0, row = 0;
    for (const auto& part : parts) rows += part.rows.count;
    const HostTensor to(dtype, {rows, parts.front().width});
    kernels::RowBatch batch;
    for (const auto& part : parts) {
        batch.copy(part, kernels::whole_rows(to, kernels::Rows::range(row, part.rows.count)));
        row += part.rows.count;
    }
    batch.run();
    std::vector<std::byte> host(static_cast<Tensor>(to).bytes());
    kernels::download(to, host.data());
    return host;
}

/// Rectangles that lie apart, beside each other and alone, of one type and of two; rows that are longer than
/// what a back end holds on the way, and some megabytes of short ones.
TEST(Transfer, RowsTravelAsCopiesOfRowsDo) {
    using kernels::Rows;
    struct Case {
        DType stored, dtype;
        std::int64_t rows, cols, column, width;
    };
    for (const Case& c : {Case{DType::f32, DType::f32, 7, 10, 3, 5},
                          {DType::bf16, DType::f32, 7, 10, 0, 10},
                          {DType::f64, DType::f32, 5, 6, 1, 4},
                          {DType::i32, DType::i32, 9, 1, 0, 1},
                          {DType::f32, DType::f32, 4, 400'001, 1, 400'000},
                          {DType::f32, DType::f32, 3, 300'000, 0, 300'000},
                          {DType::bf16, DType::f32, 700, 1030, 7, 1001},
                          {DType::f32, DType::f32, 5, 4, 2, 0}}) {
        if (watched() && c.rows * c.width > 100'000) continue;  // minutes of the same kernels
        const auto values = [&](const char* name) {
            return c.stored == DType::i32 ? HostTensor(c.stored, {c.rows, c.cols})
                                          : HostTensor::normal(c.stored, {c.rows, c.cols}, name);
        };
        const HostTensor a = values("a"), b = values("b"), back_a(c.stored, {c.rows, c.cols}),
                         back_b(c.stored, {c.rows, c.cols});
        const auto parts_of = [&](Tensor first, Tensor second) {
            return std::vector<kernels::RowPart>{{first, Rows::range(0, c.rows - 2), c.column, c.width},
                                                 {second, Rows::range(1, c.rows - 1), c.column, c.width},
                                                 {first, Rows::range(c.rows - 1, 1), c.column, c.width}};
        };
        const std::vector<kernels::RowPart> parts = parts_of(a, b);
        const std::vector<std::byte> expected = packed(parts, c.dtype);
        for (int round = 0; round < 2; ++round) {
            std::vector<std::byte> host(expected.size() + 1, std::byte{7});
            kernels::download_rows(parts, c.dtype, host.data());
            EXPECT_EQ(host.back(), std::byte{7});
            host.pop_back();
            EXPECT_TRUE(host == expected) << c.rows << " x " << c.width;
            kernels::upload_rows(host.data(), c.dtype, parts_of(back_a, back_b));
            std::fill(host.begin(), host.end(), std::byte{});  // is the caller's again
            EXPECT_TRUE(packed(parts_of(back_a, back_b), c.dtype) == expected) << c.rows << " x " << c.width;
        }
    }
}

TEST(Transfer, OfNothingTouchesNothing) {
    EXPECT_NO_THROW(kernels::download_rows({}, DType::f32, nullptr));
    EXPECT_NO_THROW(kernels::upload_rows(nullptr, DType::f32, {}));

    for (const Tensor& nothing : {Tensor(), Tensor(nullptr, DType::f32, {0, 4})}) {
        EXPECT_NO_THROW(kernels::upload(nullptr, nothing));
        EXPECT_NO_THROW(kernels::download(nothing, nullptr));
    }
}

}  // namespace
}  // namespace switchyard::test

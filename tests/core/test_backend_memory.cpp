// Memory of the back end: cleared on request, and its own record of the blocks that it gave.
// BACK ENDS: all
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/arena.hpp"
#include "core/backend_memory.hpp"
#include "core/error.hpp"
#include "kernels/transfer.hpp"

namespace switchyard {
namespace {

std::vector<std::byte> bytes_of(Tensor tensor) {
    std::vector<std::byte> bytes(tensor.bytes(), std::byte{7});
    kernels::download(tensor, bytes.data());
    return bytes;
}

TEST(BackendMemoryTest, IsAlignedAndClearedToTheLastByte) {
    // Less than one thread's block, several blocks with a remainder, and more than a large page.
    for (std::int64_t size : {1, 63, 64, 16384, 16384 * 5 + 3, (4 << 20) + 12345}) {
        const auto bytes = static_cast<std::size_t>(size);
        std::byte* memory = backend::allocate(bytes + 2);
        ASSERT_NE(memory, nullptr);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % backend::alignment(), 0u);
        const std::int64_t half = size / 2 + 1;
        const Tensor all(memory, DType::i16, {half});
        kernels::upload(std::vector<std::int16_t>(static_cast<std::size_t>(half), 0x0505).data(), all);
        backend::clear(memory, bytes);
        const std::vector<std::byte> now = bytes_of(all);
        for (std::size_t i = 0; i < now.size(); ++i)
            ASSERT_EQ(now[i], i < bytes ? std::byte{0} : std::byte{5}) << "byte " << i << " of " << bytes;
        backend::release(memory);
    }
}

TEST(BackendMemoryTest, IsReleasedWhenWhatWasStartedInItIsDone) {
    std::byte* memory = backend::allocate(4096);
    backend::clear(memory, 4096);
    backend::release(memory);
    std::byte* other = backend::allocate(4096);
    backend::clear(other, 4096);
    EXPECT_EQ(bytes_of(Tensor(other, DType::i16, {2048})), std::vector<std::byte>(4096));
    backend::release(other);
}

TEST(BackendMemoryTest, KnowsWhatItGave) {
    std::byte* memory = backend::allocate(1000);
    EXPECT_TRUE(backend::owns(memory, 1000));
    EXPECT_TRUE(backend::owns(memory + 999, 1));
    EXPECT_FALSE(backend::owns(memory + 1, 1000)) << "one byte beyond";
    EXPECT_FALSE(backend::owns(memory - 1, 2));
    const std::vector<std::byte> host(16);
    EXPECT_FALSE(backend::owns(host.data(), 16));
    backend::release(memory);
    EXPECT_FALSE(backend::owns(memory, 1));
}

TEST(BackendMemoryTest, TensorsOfAnArenaAreZeroAndApart) {
    Tensor a, b, shared;
    const Arena arena = allocate_scratch([&](Arena& arena) {
        a = arena.take(MemoryClass::workspace, DType::i16, {5});
        shared = arena.shared(DType::i16, {70});
        b = arena.take(MemoryClass::workspace, DType::i16, {16384 * 9});
    });
    for (const Tensor& tensor : {a, b, shared}) {
        EXPECT_TRUE(backend::owns(tensor.raw(), tensor.bytes()));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.raw()) % backend::alignment(), 0u);
        EXPECT_EQ(bytes_of(tensor), std::vector<std::byte>(tensor.bytes()));
        kernels::upload(std::vector<std::byte>(tensor.bytes(), std::byte{1}).data(), tensor);
    }
    for (const Tensor& tensor : {a, b, shared})
        EXPECT_EQ(bytes_of(tensor), std::vector<std::byte>(tensor.bytes(), std::byte{1}));
}

TEST(BackendMemoryTest, TransfersRefuseHostMemory) {
    std::vector<float> host(4), other(4);
    const Tensor tensor(host.data(), DType::f32, {4});
    EXPECT_THROW(kernels::download(tensor, other.data()), InternalError);
    EXPECT_THROW(kernels::upload(other.data(), tensor), InternalError);
    Tensor owned;
    const Arena arena =
        allocate_scratch([&](Arena& arena) { owned = arena.take(MemoryClass::workspace, DType::f32, {4}); });
    EXPECT_THROW(kernels::download(Tensor(owned.raw(), DType::f32, {1000}), other.data()), InternalError)
        << "longer than the block";
}

TEST(BackendMemoryTest, ThePoolHasRoomAndIsUsed) {
    const backend::Pool pool = backend::pool();
    EXPECT_FALSE(pool.name.empty());
    EXPECT_FALSE(pool.key.empty());
    EXPECT_GT(pool.free_bytes, 0);
    constexpr std::size_t bytes = std::size_t{64} << 20;
    backend::reset_peak_used_bytes();
    const double before = backend::used_bytes();
    std::byte* memory = backend::allocate(bytes);
    backend::clear(memory, bytes);
    EXPECT_GT(backend::used_bytes(), 0);
    EXPECT_GE(backend::used_bytes() - before, 0.9 * bytes);
    backend::release(memory);
    EXPECT_GE(backend::peak_used_bytes() - before, 0.9 * bytes);
}

}  // namespace
}  // namespace switchyard

// Work on many tensors in one launch. Descriptors travel by value, as one kernel parameter in constant
// memory; a block finds its descriptor by binary search. The parameter comes in two sizes, because a launch
// pays for every byte of it.
//
// A kernel is a template over the parameter's type: template <class Items> __global__ void k(const Items
// __grid_constant__ items). There is no copy of it per thread, and kernels cannot write to it.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "cuda/device.cuh"

namespace switchyard::kernels {

/// The descriptors of one launch.
template <class Item, std::size_t bytes>
struct ItemsOfLaunch {
    static constexpr std::int64_t capacity = (bytes - 32) / (sizeof(Item) + sizeof(unsigned));

    std::int64_t items_before = 0, blocks_before = 0;  // in earlier launches for the same list
    std::int32_t count = 0;
    unsigned first_block[capacity + 1];  // of each item, then the number of blocks
    Item item[capacity];

    /// The item that this block works on. Items without blocks are passed over.
    __device__ int index() const {
        int low = 0, high = count;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            (first_block[middle] <= blockIdx.x ? low : high) = middle;
        }
        return low;
    }
};

/// Items and the number of blocks that each is divided among.
template <class Item>
class ItemList {
    static constexpr std::size_t few_bytes = 4000, many_bytes = 32000;  // CUDA allows 32,764

  public:
    void reserve(std::size_t count) { items_.reserve(count), first_block_.reserve(count + 1); }
    void add(const Item& item, std::int64_t blocks) {
        items_.push_back(item);
        first_block_.push_back(first_block_.back() + blocks);
    }
    std::int64_t num_blocks() const { return first_block_.back(); }

    /// start(items, blocks) for each launch that the list takes. `items` has one of two types.
    template <class Start>
    void for_launches(const Start& start) const {
        for (std::size_t done = 0; done < items_.size();)
            done += items_.size() - done <= ItemsOfLaunch<Item, few_bytes>::capacity
                        ? start_one<few_bytes>(done, start)
                        : start_one<many_bytes>(done, start);
    }

  private:
    /// Returns the number of items of this launch.
    template <std::size_t bytes, class Start>
    std::size_t start_one(std::size_t begin, const Start& start) const {
        using Launch = ItemsOfLaunch<Item, bytes>;
        static_assert(sizeof(Launch) <= bytes);
        const std::size_t count = std::min(items_.size() - begin, static_cast<std::size_t>(Launch::capacity));
        Launch launch;
        launch.items_before = static_cast<std::int64_t>(begin);
        launch.blocks_before = first_block_[begin];
        launch.count = static_cast<std::int32_t>(count);
        std::copy_n(items_.begin() + static_cast<std::ptrdiff_t>(begin), count, launch.item);
        for (std::size_t i = 0; i <= count; ++i)
            launch.first_block[i] = static_cast<unsigned>(first_block_[begin + i] - launch.blocks_before);
        const std::int64_t blocks = first_block_[begin + count] - launch.blocks_before;
        cuda::check_blocks(blocks);
        start(launch, blocks);
        return count;
    }

    std::vector<Item> items_;
    std::vector<std::int64_t> first_block_{0};
};

/// The number of packs (see packs.cuh) that a block of 256 threads should take: eight a thread if there is
/// work for eight blocks on every multiprocessor, less if there is not. Not for sums, whose order must not
/// depend on the GPU.
inline std::int64_t packs_per_block(std::int64_t packs) {
    constexpr std::int64_t threads = 256, most = 8;
    const std::int64_t blocks = std::int64_t{8} * cuda::multiprocessors();
    return threads * std::clamp<std::int64_t>(cuda::ceil_div(packs, blocks * threads), 1, most);
}

}  // namespace switchyard::kernels

// A block factors a matrix where it lies; another kernel's blocks solve eight rows each in shared memory, one
// pivot after the other. Both triangles are there, so every access is along a row of U or U'. Elements are
// changed in the order of the pivots, whatever the number of threads.
#include "core/calls.hpp"
#include "cuda/kernels/row_places.cuh"
#include "kernels/checks/cholesky.hpp"

namespace switchyard::kernels {
namespace {

constexpr int factor_threads = 256;

/// The row of a pivot.
struct PivotRow {
    double x[most_cholesky_rows];
};

__global__ void __launch_bounds__(factor_threads)
    factor_matrices(double* grams, int r, double damping, double* defects) {
    double* gram = grams + std::int64_t{blockIdx.x} * r * r;
    auto& row = cuda::block_memory<PivotRow>();
    const int thread = static_cast<int>(threadIdx.x);
    int defect = 0;
    for (int i = thread; i < r; i += factor_threads) gram[std::int64_t{i} * r + i] += damping;
    __syncthreads();
    for (int k = 0; k < r; ++k) {
        const double square = gram[std::int64_t{k} * r + k], pivot = sqrt(square);
        if (defect == 0 && !(square > 0 && isfinite(square))) defect = k + 1;
        for (int j = k + thread; j < r; j += factor_threads) row.x[j] = gram[std::int64_t{k} * r + j] / pivot;
        __syncthreads();
        for (int j = k + thread; j < r; j += factor_threads) gram[std::int64_t{k} * r + j] = row.x[j];
        // Sixteen rows at a time, with sixteen threads for each.
        for (int i = k + 1 + thread / 16; i < r; i += factor_threads / 16) {
            const double factor = row.x[i];
            for (int j = i + thread % 16; j < r; j += 16) gram[std::int64_t{i} * r + j] -= factor * row.x[j];
        }
        __syncthreads();
    }
    for (int i = thread / 16; i < r; i += factor_threads / 16)
        for (int j = thread % 16; j < i; j += 16)
            gram[std::int64_t{i} * r + j] = gram[std::int64_t{j} * r + i];
    if (thread == 0) defects[blockIdx.x] = defect;
}

constexpr int rows_of_block = 8;

/// Element j of each row.
template <int most>
struct SolvedRows {
    double x[most][rows_of_block];
};

struct Divided {
    RowPlaces rows;
    const double* factor = nullptr;
    std::int64_t count = 0;
    DType type{};
};

/// x <- x (U' U)^-1. A thread has one row, and a share of the elements after (before) each pivot. Elements
/// are divided by their pivots at the end of each triangle; until then they hold the pivot times the result.
template <int most>
__device__ void solve(SolvedRows<most>& tile, const double* factor, int r) {
    const int thread = static_cast<int>(threadIdx.x), row = thread % rows_of_block,
              team = thread / rows_of_block, teams = static_cast<int>(blockDim.x) / rows_of_block;
    const auto divide = [&] {
        for (int j = team; j < r; j += teams) tile.x[j][row] /= factor[std::int64_t{j} * r + j];
        __syncthreads();
    };
    for (int k = 0; k < r; ++k) {  // U' y = x
        const double* pivot = factor + std::int64_t{k} * r;
        const double y = tile.x[k][row] / pivot[k];
        for (int j = k + 1 + team; j < r; j += teams) tile.x[j][row] -= pivot[j] * y;
        __syncthreads();
    }
    divide();
    for (int k = r - 1; k >= 0; --k) {  // U x = y
        const double* pivot = factor + std::int64_t{k} * r;
        const double y = tile.x[k][row] / pivot[k];
        for (int j = team; j < k; j += teams) tile.x[j][row] -= pivot[j] * y;
        __syncthreads();
    }
    divide();
}

template <int most, class Items>
__global__ void solve_items(const Items __grid_constant__ items, int r) {
    const int index = items.index(), thread = static_cast<int>(threadIdx.x),
              threads = static_cast<int>(blockDim.x);
    const Divided& item = items.item[index];
    const std::int64_t begin = std::int64_t{blockIdx.x - items.first_block[index]} * rows_of_block;
    const int count = static_cast<int>(std::min<std::int64_t>(rows_of_block, item.count - begin));
    auto& tile = cuda::block_memory<SolvedRows<most>>();
    with_number(item.type, [&]<class T>() {
        for (int i = 0; i < rows_of_block; ++i)
            for (int j = thread; j < r; j += threads)
                tile.x[j][i] =
                    i < count ? static_cast<double>(wide(item.rows.template row<const T>(begin + i)[j])) : 0;
    });
    __syncthreads();
    solve(tile, item.factor, r);
    with_number(item.type, [&]<class T>() {
        for (int i = 0; i < count; ++i)
            for (int j = thread; j < r; j += threads)
                item.rows.template row<T>(begin + i)[j] = narrow<T>(tile.x[j][i]);
    });
}

template <int most>
void launch_solves(const ItemList<Divided>& list, int r) {
    // Four elements of each row at a time where rows are short, thirty-two where they are long.
    const int threads = rows_of_block * (r <= 16 ? 4 : r <= 64 ? 8 : 32);
    list.for_launches([&](const auto& items, std::int64_t blocks) {
        cuda::launch({blocks, threads, sizeof(SolvedRows<most>)},
                     solve_items<most, std::decay_t<decltype(items)>>, items, r);
    });
}

}  // namespace

void cholesky(Tensor grams, double damping, Tensor defects) {
    count_kernel(__func__);
    check_grams(grams, defects);
    cuda::launch({grams.dim(0), factor_threads, sizeof(PivotRow)}, factor_matrices, grams.data<double>(),
                 static_cast<int>(grams.dim(1)), damping, defects.data<double>());
}

void solve_rows(std::span<const DividedRows> items) {
    count_kernel(__func__);
    const auto r = static_cast<int>(check_divided(items));
    ItemList<Divided> list;
    for (const DividedRows& item : items)
        list.add({RowPlaces(item.rows), item.factor.data<const double>(), item.rows.rows.count,
                  item.rows.matrix.dtype()},
                 cuda::ceil_div(item.rows.rows.count, rows_of_block));
    if (r <= 128) return launch_solves<128>(list, r);
    r <= 512 ? launch_solves<512>(list, r) : launch_solves<most_cholesky_rows>(list, r);
}

}  // namespace switchyard::kernels

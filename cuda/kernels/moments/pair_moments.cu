// Two launches for all parameters: step counters, then rows. A block takes some rows of a factor one after
// the other, with the map of coordinates and a row's matrix in shared memory in f64; a thread has some
// elements of each product. The order of every sum is fixed.
#include "core/calls.hpp"
#include "cuda/kernels/chunks.cuh"
#include "cuda/kernels/row_places.cuh"
#include "kernels/checks/pair_moments.hpp"

namespace switchyard::kernels {
namespace {

constexpr int most = static_cast<int>(most_pair_rank), rows_of_block = 8;

/// A factor with its addresses.
struct Moments {
    void *m = nullptr, *v = nullptr;
    RowPlaces gradient;
    const double* map = nullptr;
    double* corrections = nullptr;
    std::int32_t* step = nullptr;
    std::int64_t rows = 0;
    double beta1 = 0, beta2 = 0;
    DType type{};
    int r = 0;
};

/// The map and what belongs to a row; a column more than there is, so that columns lie in different banks.
struct RowWork {
    double map[most][most + 1], second[most][most + 1], half[most][most + 1];
    double m[most], g[most];
};

/// The row a of pair `index`.
__device__ inline int row_of_pair(int index) {
    int a = static_cast<int>((std::sqrt(8.0f * static_cast<float>(index) + 1.0f) - 1.0f) / 2.0f);
    while (a * (a + 1) / 2 > index) --a;
    while ((a + 1) * (a + 2) / 2 <= index) ++a;
    return a;
}

template <class T>
__device__ void load_row(const Moments& x, std::int64_t row, double clip, RowWork& at) {
    const int r = x.r, pairs = r * (r + 1) / 2, thread = static_cast<int>(threadIdx.x),
              threads = static_cast<int>(blockDim.x);
    const T *m = static_cast<const T*>(x.m) + row * r, *v = static_cast<const T*>(x.v) + row * pairs,
            *gradient = x.gradient.row<const T>(row);
    for (int a = thread; a < r; a += threads) {
        at.m[a] = static_cast<double>(m[a]);
        at.g[a] = clip * static_cast<double>(gradient[a]);
    }
    for (int i = thread; i < pairs; i += threads) {
        const int a = row_of_pair(i), b = i - a * (a + 1) / 2;
        at.second[a][b] = at.second[b][a] = static_cast<double>(v[i]);
    }
}

template <class T>
__device__ void store_row(const Moments& x, std::int64_t row, const RowWork& at) {
    const int r = x.r, pairs = r * (r + 1) / 2, thread = static_cast<int>(threadIdx.x),
              threads = static_cast<int>(blockDim.x);
    T *m = static_cast<T*>(x.m) + row * r, *v = static_cast<T*>(x.v) + row * pairs;
    for (int a = thread; a < r; a += threads) {
        double sum = 0;
        for (int k = 0; k < r; ++k) sum += at.m[k] * at.map[k][a];
        m[a] = static_cast<T>(x.beta1 * sum + (1 - x.beta1) * at.g[a]);
    }
    for (int i = thread; i < pairs; i += threads) {
        const int a = row_of_pair(i), b = i - a * (a + 1) / 2;
        double sum = 0;
        for (int k = 0; k < r; ++k) sum += at.map[k][a] * at.half[k][b];
        v[i] = static_cast<T>(x.beta2 * sum + (1 - x.beta2) * at.g[a] * at.g[b]);
    }
}

/// f.operator()<T>() with the type of the state, f32 or f64.
template <class F>
__device__ void with_state(DType type, const F& f) {
    type == DType::f64 ? f.template operator()<double>() : f.template operator()<float>();
}

template <class Items>
__global__ void advance_counters(const Items __grid_constant__ items, const double* clip) {
    if (clip[1] == 0) return;
    for (int i = static_cast<int>(threadIdx.x); i < items.count; i += static_cast<int>(blockDim.x)) {
        const Moments& x = items.item[i];
        const double step = ++*x.step;
        x.corrections[0] = 1 / (1 - pow(x.beta1, step));
        x.corrections[1] = 1 / (1 - pow(x.beta2, step));
    }
}

template <class Items>
__global__ void advance_rows(const Items __grid_constant__ items, const double* clip) {
    if (clip[1] == 0) return;
    const int index = items.index(), thread = static_cast<int>(threadIdx.x),
              threads = static_cast<int>(blockDim.x);
    const Moments& x = items.item[index];
    const std::int64_t begin = std::int64_t{blockIdx.x - items.first_block[index]} * rows_of_block,
                       end = std::min(begin + rows_of_block, x.rows);
    auto& at = cuda::block_memory<RowWork>();
    const int r = x.r;
    for (int i = thread; i < r * r; i += threads) at.map[i / r][i % r] = x.map[i];
    for (std::int64_t row = begin; row < end; ++row) {
        with_state(x.type, [&]<class T>() { load_row<T>(x, row, clip[0], at); });
        __syncthreads();
        for (int i = thread; i < r * r; i += threads) {
            const int a = i / r, b = i % r;
            double sum = 0;
            for (int k = 0; k < r; ++k) sum += at.second[a][k] * at.map[k][b];
            at.half[a][b] = sum;
        }
        __syncthreads();
        with_state(x.type, [&]<class T>() { store_row<T>(x, row, at); });
        __syncthreads();
    }
}

template <class T>
struct PairProducts {
    const T* rows;
    T* pairs;
    int r, width;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const std::int64_t row = at / width;
        const int index = static_cast<int>(at - row * width), a = row_of_pair(index),
                  b = index - a * (a + 1) / 2;
        const T* q = rows + row * r;
        pairs[at] = (a == b ? q[a] : 2 * q[a]) * q[b];
    }
};

template <class T>
struct PairDirection {
    T* first;
    const T* second;
    const double* corrections;
    double eps;
    template <int n>
    __device__ void operator()(std::int64_t at) const {
        const T c1 = static_cast<T>(corrections[0]), c2 = static_cast<T>(corrections[1]);
        auto x = load_chunk<n>(first + at);
        const auto v = load_chunk<n>(second + at);
        for (int i = 0; i < n; ++i) {
            const T square = v.x[i] < 0 ? T(0) : v.x[i] * c2;  // NaN stays
            x.x[i] = x.x[i] * c1 / (std::sqrt(square) + static_cast<T>(eps));
        }
        store_chunk(first + at, x);
    }
};

/// f.operator()<T>() with the type of x, f32 or f64.
template <class F>
void with_wide(Tensor x, const F& f) {
    if (x.dtype() == DType::f64) return f.template operator()<double>();
    f.template operator()<float>();
}

}  // namespace

void advance_pair_moments(std::span<const PairMoments> parameters, Tensor clip) {
    count_kernel(__func__);
    check("clip", clip, DType::f64, {2});
    ItemList<Moments> list;
    std::int64_t most_elements = 1;
    for (const PairMoments& p : parameters) {
        check_pair_moments(p);
        const std::int64_t rows = p.m.dim(0), r = p.m.dim(1);
        list.add({p.m.raw(), p.v.raw(), RowPlaces(p.gradient), p.map.data<const double>(),
                  p.corrections.data<double>(), p.step.data<std::int32_t>(), rows, p.beta1, p.beta2,
                  p.m.dtype(), static_cast<int>(r)},
                 cuda::ceil_div(rows, rows_of_block));
        most_elements = std::max(most_elements, r * r);
    }
    const auto* clip_data = clip.data<const double>();
    list.for_launches([&](const auto& items, std::int64_t blocks) {
        using Items = std::decay_t<decltype(items)>;
        cuda::launch({1, block_threads(items.count)}, advance_counters<Items>, items, clip_data);
        cuda::launch({blocks, block_threads(most_elements), sizeof(RowWork)}, advance_rows<Items>, items,
                     clip_data);
    });
}

void pair_products(Tensor rows, Tensor pairs) {
    count_kernel(__func__);
    check_pair_products(rows, pairs);
    with_wide(rows, [&]<class T>() {
        for_elements<T>(pairs.size(), false,
                        PairProducts<T>{rows.data<const T>(), pairs.data<T>(), static_cast<int>(rows.dim(1)),
                                        static_cast<int>(pairs.dim(1))});
    });
}

void pair_direction(Tensor first, Tensor second, Tensor corrections, double eps) {
    count_kernel(__func__);
    check_pair_direction(first, second, corrections);
    with_wide(first, [&]<class T>() {
        for_elements<T>(
            first.size(), aligned(first, second),
            PairDirection<T>{first.data<T>(), second.data<const T>(), corrections.data<const double>(), eps});
    });
}

}  // namespace switchyard::kernels

// The rows of all items of a call are divided among the threads together. A rectangle that is one piece of
// memory counts as one long row if the result does not depend on how it is cut.
#include "kernels/rows.hpp"

#include <vector>

#include "core/calls.hpp"
#include "kernels/cpu/row_items.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels {
namespace {

/// A task with its addresses; `long_row`: the rectangle is treated as one row.
struct Job {
    RowPlaces to, from, minus;
    DType to_type, from_type;
    bool copies = false, subtracts = false;
};

template <class From, class To>
void subtract_block(const From* from, const From* minus, To* to, std::int64_t n) {
    using Sum = std::conditional_t<std::is_same_v<From, double>, double, Wide<To>>;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
        to[i] = convert<To>(static_cast<Sum>(load(from[i])) - static_cast<Sum>(load(minus[i])));
}

/// For equal types: copies bytes.
void move_block(const Job& job, std::int64_t row, std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::int64_t>(size_of(job.to_type));
    std::byte* to = job.to.first + job.to.offset(row, begin) * size;
    const auto bytes = static_cast<std::size_t>((end - begin) * size);
    if (!job.copies) {
        std::memset(to, 0, bytes);
        return;
    }
    if (job.from.list && row + 2 < job.from.rows)
        prefetch(job.from.first + job.from.offset(row + 2, begin) * size, (end - begin) * size);
    if (job.to.list && row + 2 < job.to.rows)
        prefetch<true>(job.to.first + job.to.offset(row + 2, begin) * size, (end - begin) * size);
    std::memcpy(to, job.from.first + job.from.offset(row, begin) * size, bytes);
}

void run_block(const Job& job, std::int64_t row, std::int64_t begin, std::int64_t end) {
    if (!job.subtracts && (!job.copies || job.from_type == job.to_type))
        return move_block(job, row, begin, end);
    dispatch(job.from_type, [&]<class From>() {
        dispatch(job.to_type, [&]<class To>() {
            job.from.prefetch_later<false, From>(row, begin, end);
            job.to.prefetch_later<true, To>(row, begin, end);
            const From* from = job.from.at<From>(row, begin);
            To* to = job.to.at<To>(row, begin);
            if (job.subtracts)
                subtract_block(from, job.minus.at<From>(row, begin), to, end - begin);
            else
                copy_block(from, to, end - begin);
        });
    });
}

/// to (n) <- sum of its parts: part p at parts + p stride, part `own` in `to`; in blocks that stay in cache.
template <class From, class To>
void sum_parts_block(const From* parts, std::int64_t num_parts, std::int64_t stride, std::int64_t own, To* to,
                     std::int64_t n) {
    Wide<To> sum[block_size];
    for (std::int64_t p = 0; p < num_parts; ++p) {
        const From* part = parts + p * stride;
        if (p == own) {
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i)
                sum[i] = (p == 0 ? 0 : sum[i]) + static_cast<Wide<To>>(load(convert<From>(load(to[i]))));
        } else {
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i)
                sum[i] = (p == 0 ? 0 : sum[i]) + static_cast<Wide<To>>(load(part[i]));
        }
    }
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) to[i] = convert<To>(sum[i]);
}

template <class T>
double square_block(const T* x, std::int64_t n) {
    return sum_over<double>(
        n,
        [=](std::int64_t i, double sum) {
            const double value = load(x[i]);
            return multiply_add(value, value, sum);
        },
        x);
}

}  // namespace

void run_rows(std::span<const RowTask> tasks) {
    count_kernel(__func__);
    std::vector<Job> jobs;
    jobs.reserve(tasks.size());
    RowItems items;
    for (const RowTask& task : tasks) {
        check_task(task);
        for (const RowPart* part : {&task.to, &task.from, &task.minus}) check_entries(*part);
        const bool copies = task.from.matrix.shape().rank() > 0,
                   subtracts = task.minus.matrix.shape().rank() > 0;
        jobs.push_back({RowPlaces(task.to), RowPlaces(task.from), RowPlaces(task.minus),
                        task.to.matrix.dtype(), copies ? task.from.matrix.dtype() : task.to.matrix.dtype(),
                        copies, subtracts});
        const bool long_row = is_contiguous(task.to) && (!copies || is_contiguous(task.from)) &&
                              (!subtracts || is_contiguous(task.minus));
        const std::int64_t rows = task.to.rows.count, width = task.to.width;
        items.add(long_row ? 1 : rows, long_row ? rows * width : width);
    }
    items.for_blocks([&jobs](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        run_block(jobs[item], row, begin, end);
    });
}

void sum_parts(Tensor parts, std::int64_t own, std::span<const RowSum> sums) {
    count_kernel(__func__);
    check_parts(parts, own);
    RowItems items;
    std::vector<RowPlaces> places;
    places.reserve(sums.size());
    for (const RowSum& sum : sums) {
        check_sum(parts, sum);
        check_entries(sum.to);
        const std::int64_t rows = sum.to.rows.count, width = sum.to.width;
        places.emplace_back(sum.to);
        items.add(is_contiguous(sum.to) ? 1 : rows, is_contiguous(sum.to) ? rows * width : width);
    }
    const std::int64_t num_parts = parts.dim(0), n = parts.dim(1);
    items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        const RowSum& sum = sums[item];
        dispatch(parts.dtype(), [&]<class From>() {
            dispatch(sum.to.matrix.dtype(), [&]<class To>() {
                places[item].prefetch_later<true, To>(row, begin, end);
                sum_parts_block(parts.data<From>() + sum.offset + row * sum.to.width + begin, num_parts, n,
                                own, places[item].at<To>(row, begin), end - begin);
            });
        });
    });
}

/// A quarter of a megabyte is large enough for the network, and small enough to be packed, sent, summed and
/// unpacked in a core's cache.
std::int64_t segment_elements() {
    return std::int64_t{1} << 16;
}

void squared_norms(std::span<const RowPart> parts, Tensor sums) {
    count_kernel(__func__);
    check("sums of squares", sums, DType::f64, {static_cast<std::int64_t>(parts.size())});
    RowItems items;
    std::vector<RowPlaces> places;
    std::vector<std::int64_t> first_sum{0};  // the first block of each item
    for (const RowPart& part : parts) {
        check_part(part);
        check_entries(part);
        check_numbers(part.matrix);
        places.emplace_back(part);
        items.add(part.rows.count, part.width);
        first_sum.push_back(first_sum.back() + part.rows.count * num_blocks(part.width));
    }
    std::vector<double> blocks(static_cast<std::size_t>(first_sum.back()));
    items.for_blocks([&](std::size_t item, std::int64_t row, std::int64_t begin, std::int64_t end) {
        const std::int64_t block = first_sum[item] + row * num_blocks(parts[item].width) + begin / block_size;
        dispatch(parts[item].matrix.dtype(), [&]<class T>() {
            blocks[static_cast<std::size_t>(block)] =
                square_block(places[item].at<T>(row, begin), end - begin);
        });
    });
    for (std::size_t item = 0; item < parts.size(); ++item) {
        double sum = 0;
        for (std::int64_t i = first_sum[item]; i < first_sum[item + 1]; ++i)
            sum += blocks[static_cast<std::size_t>(i)];
        sums.data<double>()[item] = sum;
    }
}

}  // namespace switchyard::kernels

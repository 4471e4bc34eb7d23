// x and d_y are cut into the columns of minis by copies, so that every product is of contiguous operands.
#include "methods/parts/mini_adapter.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/random.hpp"
#include "kernels/rows.hpp"
#include "methods/parts/places.hpp"
#include "methods/parts/strategy.hpp"

namespace switchyard {
namespace {

using kernels::matmul;
using kernels::Op;

/// The rows of the other factor that belong to the minis of `cut`, if its blocks end where minis do; else
/// all.
Extent rows_of_minis(const Extent& cut, const Extent& other, std::int64_t minis) {
    const std::int64_t of_cut = cut.size / minis, of_other = other.size / minis;
    if (cut.padded % of_cut != 0) return other;
    return {other.size, cut.begin / of_cut * of_other, cut.count / of_cut * of_other,
            cut.padded / of_cut * of_other};
}

Parameter make_factor(const ModelContext& context, const std::string& name, const Extent& rows,
                      std::int64_t low_rank, bool cut) {
    Parameter p;
    p.shard = {name, {rows.size, low_rank}, rows.begin, 0, rows.count, low_rank, 0};
    p.value = context.arena.take(MemoryClass::trainable, context.dtype, {rows.padded, low_rank});
    p.gradient = context.arena.take(MemoryClass::gradients, context.accumulate(), {rows.padded, low_rank});
    p.tp_gradient = cut ? TpGradient::own : TpGradient::partial;
    return p;
}

}  // namespace

MiniAdapter::MiniAdapter(const ModelContext& context, const Linear& linear, std::int64_t low_rank,
                         std::int64_t minis, double scale)
    : minis_(minis),
      low_rank_(low_rank),
      scale_(scale),
      measuring_(context.arena.measuring()),
      rows_of_a_(linear.in()),
      rows_of_b_(linear.out()),
      in_(linear.in()),
      out_(linear.out()) {
    internal_check(linear.in().size % minis == 0 && linear.out().size % minis == 0, "{} in {} minis",
                   linear.name(), minis);
    const bool column = linear.split() == Split::column;
    const Extent& cut = column ? linear.out() : linear.in();
    Extent& other = column ? rows_of_a_ : rows_of_b_;
    const bool between = context.tp_size() > 1 && cut.padded % (cut.size / minis) == 0;
    if (between) other = rows_of_minis(cut, other, minis);
    a_ = make_factor(context, linear.name() + ".lora_A", rows_of_a_, low_rank, !column || between);
    b_ = make_factor(context, linear.name() + ".lora_B", rows_of_b_, low_rank, column || between);
    a_.transposed = true;
    find_parts(linear);
    take_memory(context, linear);
}

void MiniAdapter::find_parts(const Linear& linear) {
    const bool column = linear.split() == Split::column;
    const Extent& cut = column ? linear.out() : linear.in();
    const std::int64_t of_cut = cut.size / minis_,
                       of_other = (column ? linear.in().size : linear.out().size) / minis_,
                       end = cut.begin + cut.count, rows_begin = column ? rows_of_a_.begin : rows_of_b_.begin;
    for (std::int64_t mini = cut.begin / of_cut; mini * of_cut < end; ++mini) {
        const std::int64_t first = std::max(cut.begin, mini * of_cut),
                           last = std::min(end, (mini + 1) * of_cut), local = first - cut.begin,
                           there = mini * of_other, row = there - rows_begin;
        if (column)
            parts_.push_back({there, of_other, local, last - first, row, local});
        else
            parts_.push_back({local, last - first, there, of_other, local, row});
    }
}

void MiniAdapter::take_memory(const ModelContext& context, const Linear& linear) {
    const std::int64_t n = context.tokens(), r = low_rank_,
                       slots = r * std::max<std::int64_t>(1, static_cast<std::int64_t>(parts_.size()));
    std::int64_t widest_in = 1, widest_out = 1;
    for (const Part& part : parts_) {
        widest_in = std::max(widest_in, part.in);
        widest_out = std::max(widest_out, part.out);
    }
    const std::int64_t rows = linear.frozen_slice(context).kept;
    const auto scratch =
        static_cast<std::int64_t>(kernels::frozen_scratch_bytes(rows, in_.padded, context.dtype));
    take_shared(context.arena, [&](Places& places) {
        x_part_ = places.take(context.dtype, {n * widest_in});
        d_y_part_ = places.take(context.dtype, {n * widest_out});
        z_ = places.take(context.dtype, {n, r});
    });
    take_shared(context.arena, [&](Places& places) {
        slots_a_ = places.take(context.dtype, {slots, in_.padded});
        slots_b_ = places.take(context.dtype, {slots * out_.padded + r * widest_out});
        turned_ = places.take(context.dtype, {r * std::max(rows_of_a_.padded, widest_in)});
        merge_scratch_ = places.take(DType::u8, {scratch});
    });
}

void MiniAdapter::forward(const Linear& linear, Tensor x, Tensor y) {
    matmul({.a = x, .b = linear.weight(), .c = y, .op_b = Op::transpose});
}

Tensor MiniAdapter::columns(Tensor t, std::int64_t column, std::int64_t width, Tensor place) {
    if (width == t.dim(1)) return t;
    const std::int64_t rows = t.dim(0);
    const Tensor part = place.view(t.dtype(), {rows, width});
    kernels::copy_rows({t, kernels::Rows::range(0, rows), column, width}, kernels::whole_rows(part));
    return part;
}

void MiniAdapter::backward(const Linear& linear, Tensor x, Tensor d_y, Tensor d_x, Write write) {
    matmul({.a = d_y, .b = linear.weight(), .c = d_x, .accumulate = write == Write::accumulate});
    for (const Part& part : parts_) {
        const Tensor x_part = columns(x, part.x_column, part.in, x_part_),
                     d_y_part = columns(d_y, part.y_column, part.out, d_y_part_),
                     a = a_.value.rows(part.a_row, part.in), b = b_.value.rows(part.b_row, part.out);
        matmul({.a = d_y_part, .b = b, .c = z_, .alpha = scale_});
        matmul({.a = x_part,
                .b = z_,
                .c = a_.gradient.rows(part.a_row, part.in),
                .op_a = Op::transpose,
                .accumulate = true});
        matmul({.a = x_part, .b = a, .c = z_});
        matmul({.a = d_y_part,
                .b = z_,
                .c = b_.gradient.rows(part.b_row, part.out),
                .op_a = Op::transpose,
                .alpha = scale_,
                .accumulate = true});
    }
}

void MiniAdapter::spread(const Part& part, std::int64_t first, std::int64_t count, Tensor a, Tensor b) const {
    const Tensor turned = turned_.rows(0, low_rank_ * part.in).reshape({low_rank_, part.in});
    kernels::transpose(a_.value.rows(part.a_row, part.in), turned);
    kernels::zero(a);
    kernels::copy_rows(kernels::whole_rows(turned),
                       {a, kernels::Rows::range(0, low_rank_), part.x_column, part.in});
    kernels::transpose(b_.value.rows(part.b_row + first, count), b);
}

std::optional<kernels::EffectiveWeight> MiniAdapter::effective_weight() {
    if (parts_.empty()) return kernels::EffectiveWeight{};
    const std::int64_t r = low_rank_, count = static_cast<std::int64_t>(parts_.size()), width = out_.padded;
    const Tensor all = slots_b_.rows(0, count * r * width).reshape({count * r, width});
    if (!measuring_) {
        kernels::zero(all);
        for (std::int64_t i = 0; i < count; ++i) {
            const Part& part = parts_[static_cast<std::size_t>(i)];
            const Tensor b = slots_b_.rows(count * r * width, r * part.out).reshape({r, part.out});
            spread(part, 0, part.out, slots_a_.rows(i * r, r), b);
            kernels::copy_rows(kernels::whole_rows(b),
                               {all, kernels::Rows::range(i * r, r), part.y_column, part.out});
        }
    }
    return kernels::EffectiveWeight{{slots_a_.rows(0, count * r), all, scale_}};
}

void MiniAdapter::merge(kernels::FrozenWeight base_rows, std::int64_t row0, Tensor out) {
    const std::int64_t end = row0 + base_rows.hi.dim(0);
    std::int64_t done = row0;
    const auto form = [&](std::int64_t until, const kernels::EffectiveWeight& effective) {
        if (until > done)
            kernels::merge(base_rows.rows(done - row0, until - done), effective,
                           out.rows(done - row0, until - done), merge_scratch_);
        done = std::max(done, until);
    };
    for (const Part& part : parts_) {
        const std::int64_t first = std::max(row0, part.y_column),
                           last = std::min(end, part.y_column + part.out);
        if (first >= last) continue;
        form(first, {});
        const Tensor a = slots_a_.rows(0, low_rank_),
                     b = slots_b_.rows(0, low_rank_ * (last - first)).reshape({low_rank_, last - first});
        spread(part, first - part.y_column, last - first, a, b);
        form(last, {{a, b, scale_}});
    }
    form(end, {});
}

Cost MiniAdapter::cost(const Linear& linear) const {
    return cost_of_merged(linear, low_rank_);
}

void MiniAdapter::draw_a(std::uint64_t key, double bound) {
    const Extent& rows = rows_of_a_;
    const Tensor slots = turned_.rows(0, low_rank_ * rows.padded).reshape({low_rank_, rows.padded});
    kernels::fill_uniform(slots, {rows.size, 0, rows.begin, low_rank_, rows.count}, key, bound);
    kernels::transpose(slots, a_.value);
}

}  // namespace switchyard

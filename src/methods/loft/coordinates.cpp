#include "methods/loft/coordinates.hpp"

#include "core/error.hpp"
#include "kernels/elementwise.hpp"

namespace switchyard {

void Coordinates::add(const Linear& linear, LowRankAdapter& adapter) {
    linears_.push_back(&linear);
    a_.push_back(&adapter.a());
    products_.add(linear, adapter);
}

void Coordinates::allocate(const ModelContext& context, kernels::StepScalars& scalars) {
    topology_ = &context.topology;
    traffic_ = &context.traffic;
    Arena& arena = context.arena;
    products_.allocate(context);
    for (Tensor* table : {&grams_, &divisors_, &maps_})
        *table = arena.take(MemoryClass::workspace, DType::f64, {2 * count(), low_rank_, low_rank_});
    overlaps_ = arena.take(MemoryClass::moments, DType::f64, {count(), low_rank_, low_rank_});
    const std::int64_t ranks = topology_->world.size();
    scratch_ = arena.shared(DType::f64, {overlaps_.size() + 8 * ranks});
    defects_.allocate(arena, scalars, 2 * count());
}

void Coordinates::initialise() const {
    kernels::zero(overlaps_);
}

void Coordinates::form_grams() {
    kernels::RowBatch batch;
    for (const FactorGrams::Which which : {FactorGrams::Which::cut, FactorGrams::Which::whole}) {
        const Tensor formed = products_.form(which);
        for (std::int64_t i = 0; i < count(); ++i) {
            const bool for_a = &products_.partner(i, which) == a_[static_cast<std::size_t>(i)];
            batch.copy(kernels::whole_rows(formed.rows(i, 1).reshape({low_rank_, low_rank_})),
                       kernels::whole_rows(gram(i, for_a ? of_a : of_b)));
        }
        batch.run();
    }
}

void Coordinates::form(Side moved, std::span<const kernels::RowPart> gradients) {
    form_grams();
    kernels::copy(grams_, divisors_);
    kernels::copy(of_side(grams_, moved), of_side(maps_, moved));  // its partner stayed
    kernels::copy(overlaps_, of_side(maps_, other(moved)));
    divided_.clear();
    for (const Side side : {of_a, of_b}) {
        kernels::cholesky(of_side(divisors_, side), damping_[side], defects_.of(side * count(), count()));
        for (std::int64_t i = 0; i < count(); ++i) {
            divided_.push_back({divisor(i, side), kernels::whole_rows(map(i, side))});
            divided_.push_back({divisor(i, side), gradients[static_cast<std::size_t>(side * count() + i)]});
        }
    }
    kernels::solve_rows(divided_);
    defects_.find_worst();
}

void Coordinates::sum_overlaps() const {
    start_all_reduce(topology_->world, overlaps_, scratch_, *traffic_, TrafficGroup::other).wait();
}

void Coordinates::visit_state(StateIo& io) const {
    for (std::int64_t i = 0; i < count(); ++i) {
        const std::string path =
            fmt::format("/method/{}/overlap", linears_[static_cast<std::size_t>(i)]->name());
        io.tensor(path, {path, {low_rank_, low_rank_}, 0, 0, low_rank_, low_rank_, topology_->world.rank()},
                  overlap(i));
    }
}

void Coordinates::judge(std::span<const double> scalars) const {
    const std::int64_t bad = defects_.first_bad(scalars);
    if (bad < 0) return;
    const bool for_a = bad < count();
    const char* key = for_a ? "method.damping_a" : "method.damping_b";
    fail<AgreedError>(
        "{} of {} plus {} = {} is not positive definite (the gradient of {} has no coordinates: the factors "
        "are "
        "very large or their vectors dependent, and the damping is below the rounding); resume from the last "
        "checkpoint with a larger {} or a smaller optim.lr",
        for_a ? "B' B" : "A A'", linears_[static_cast<std::size_t>(bad % count())]->name(), key,
        damping_[for_a ? of_a : of_b], for_a ? "A" : "B", key);
}

double Coordinates::bytes() const {
    return products_.bytes() +
           all_reduce_bytes(static_cast<double>(overlaps_.bytes()), topology_->world.size());
}

double Coordinates::operations() const {
    const double r = static_cast<double>(low_rank_);
    return products_.operations() +
           topology_->world.size() * static_cast<double>(count()) * 5 * r * r * r;  // Cholesky factors, maps
}

}  // namespace switchyard

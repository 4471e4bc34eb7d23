// Wraps a run's method, with calls of a test between its hooks.
#pragma once

#include <functional>
#include <utility>

#include "train/train_state.hpp"

namespace switchyard::testing {

class HookedMethod : public Method {
  public:
    /// Replaces the state's method by a wrapper around it.
    static HookedMethod& install(TrainState& state) {
        auto hooked = std::make_unique<HookedMethod>();
        hooked->inner_ = std::move(state.method);
        HookedMethod& result = *hooked;
        state.method = std::move(hooked);
        return result;
    }

    /// Called when the gradients of this rank are complete, when they are reduced to the owners, when the
    /// method has prepared them for the update, when all ranks hold the updated vectors, and when the method
    /// has worked on these.
    std::function<void()> before_reduction = [] {}, after_reduction = [] {}, after_before_update = [] {},
                          before_switch = [] {}, after_switch = [] {};
    bool no_update = false;  // values stay as they are

    GroupAdapters attach_group(const ModelContext& c, LinearGroup& g) override {
        return inner_->attach_group(c, g);
    }
    OwnershipPlan ownership(const ModelContext& c, const Parameter& p) override {
        return inner_->ownership(c, p);
    }
    void allocate(const ModelContext& c, Transformer& t, Optimizer& o) override { inner_->allocate(c, t, o); }
    void initialise(const ModelContext& c) override { inner_->initialise(c); }
    void weights_changed(const ModelContext& c, std::int64_t step) override {
        inner_->weights_changed(c, step);
    }
    void visit_function(StateIo& io) override { inner_->visit_function(io); }
    void begin_step(std::int64_t step) override { inner_->begin_step(step); }
    double task_weight() const override { return inner_->task_weight(); }
    void begin_micro_batch(Transformer& t) override { inner_->begin_micro_batch(t); }
    void reduce_gradients(Optimizer& o) override {
        before_reduction();
        inner_->reduce_gradients(o);
        after_reduction();
    }
    void squared_gradient_norm(Optimizer& o) override { inner_->squared_gradient_norm(o); }
    void before_update(Optimizer& o, std::int64_t step) override {
        inner_->before_update(o, step);
        after_before_update();
    }
    void update(Optimizer& o, double factor) override {
        if (!no_update) inner_->update(o, factor);
    }
    MethodReport after_gather(Optimizer& o, std::int64_t step) override {
        before_switch();
        const MethodReport report = inner_->after_gather(o, step);
        after_switch();
        return report;
    }
    void diagnose(std::span<const double> scalars) override { inner_->diagnose(scalars); }
    void end_step(std::span<const double> scalars, MethodReport& report) override {
        inner_->end_step(scalars, report);
    }
    double lr_multiplier(std::int64_t step) const override { return inner_->lr_multiplier(step); }
    void visit_state(StateIo& io, Optimizer& o) override { inner_->visit_state(io, o); }
    std::vector<std::string> notes(const Config& c) const override { return inner_->notes(c); }
    std::vector<Traffic> plan_traffic(const Optimizer& o, std::int64_t steps) const override {
        return inner_->plan_traffic(o, steps);
    }

  private:
    std::unique_ptr<Method> inner_;
};

}  // namespace switchyard::testing
